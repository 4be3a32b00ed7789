"""What a pixel can be made of: its class in the mask, its colour and its texture."""

import numpy as np

from datasets.landscape import CLASSES

# Every material: its class in the mask, its colour by neutral light (sRGB), and how rough its texture looks (0..1).
MATERIALS = {
    "sky": ("sky", (128, 170, 220), 0.0),
    "mountain rock": ("mountain", (122, 112, 104), 0.5),
    "mountain cliff": ("mountain", (98, 90, 86), 0.5),
    "mountain forest": ("mountain", (56, 80, 50), 1.0),
    "mountain meadow": ("mountain", (108, 120, 68), 0.5),
    "mountain peak": ("mountain", (240, 243, 248), 0.12),
    "hill grass": ("hill", (112, 138, 62), 0.3),
    "hill forest": ("hill", (58, 88, 46), 0.6),
    "water": ("water", (36, 84, 92), 0.0),
    "sea": ("sea", (22, 78, 110), 0.0),
    "river": ("river", (50, 92, 88), 0.0),
    "lake": ("lake", (26, 92, 112), 0.0),
    "surf": ("sea", (232, 240, 242), 0.15),
    "rapids": ("river", (222, 232, 234), 0.2),
    "waterfall": ("waterfall", (226, 236, 242), 0.1),
    "rock": ("rock", (112, 104, 98), 0.6),
    "mossy rock": ("rock", (96, 100, 74), 0.6),
    "earth": ("earth", (136, 98, 66), 0.4),
    "land": ("land", (158, 134, 92), 0.35),
    "sand": ("sand", (220, 194, 146), 0.12),
    "wet sand": ("sand", (158, 130, 96), 0.1),
    "grass": ("grass", (98, 128, 58), 0.4),
    "plant": ("plant", (70, 124, 44), 0.6),
    "blossom": ("plant", (214, 150, 170), 0.5),
    "ripe field": ("field", (198, 168, 98), 0.25),
    "green field": ("field", (120, 144, 74), 0.25),
    "ploughed field": ("field", (128, 92, 64), 0.3),
    "conifer": ("tree", (38, 70, 44), 0.5),
    "broadleaf": ("tree", (66, 106, 40), 0.5),
    "trunk": ("tree", (80, 62, 48), 0.3),
    "path": ("path", (188, 160, 122), 0.25),
    "road": ("road", (96, 96, 100), 0.12),
    "road line": ("road", (232, 226, 200), 0.05),
    "building": ("building", (188, 180, 170), 0.1),
    "brick building": ("building", (158, 96, 78), 0.12),
    "building window": ("building", (62, 76, 92), 0.0),
    "house": ("house", (232, 222, 202), 0.08),
    "timber house": ("house", (136, 92, 62), 0.15),
    "roof": ("house", (152, 66, 48), 0.2),
    "house window": ("house", (60, 66, 76), 0.0),
    "wall": ("wall", (160, 150, 136), 0.4),
    "bridge": ("bridge", (146, 134, 120), 0.25),
    "pier": ("pier", (132, 106, 82), 0.25),
    "railing": ("railing", (206, 208, 212), 0.05),
    "fence": ("fence", (124, 96, 70), 0.2),
    "boat": ("boat", (182, 60, 46), 0.08),
    "boat trim": ("boat", (240, 236, 224), 0.05),
    "ship": ("ship", (54, 64, 84), 0.08),
    "ship deck": ("ship", (236, 236, 232), 0.05),
    "funnel": ("ship", (196, 70, 44), 0.05),
    "skin": ("person", (214, 164, 132), 0.0),
    "jacket": ("person", (206, 58, 48), 0.1),
    "trousers": ("person", (48, 56, 82), 0.1),
    "balloon": ("other", (224, 74, 56), 0.05),
    "balloon stripe": ("other", (244, 206, 90), 0.05),
    "signpost": ("other", (120, 90, 62), 0.1),
}
INDEX = {name: number for number, name in enumerate(MATERIALS)}
CLASS_OF = np.array([CLASSES.index(name) for name, _, _ in MATERIALS.values()], np.uint8)
COLOUR_OF = np.array([colour for _, colour, _ in MATERIALS.values()], np.float32)
ROUGHNESS_OF = np.array([roughness for _, _, roughness in MATERIALS.values()], np.float32)
WATERS = ("water", "sea", "river", "lake")
WINDOWS = ("building window", "house window")
