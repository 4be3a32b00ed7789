"""The built-in data set: landscapes drawn by program, with exact masks, references and captions.

    from datasets.synthetic.render import draw
    from datasets.synthetic.write import write_dataset
    image, mask, captions = draw(layout_seed=3, style_seed=8)
    write_dataset("data/synthetic", train=1000, test=100, seed=0)

A picture is a *layout* seen in a *style*. The layout is geometry: a terrain in metres seen by a pinhole camera, a
material at every pixel, and things standing in it; it fixes the mask. The style is light, weather, season and palette; it
fixes the colours. The same layout in two styles has the same mask, and the same style gives two layouts the same tone:
exactly what a generator guided by a mask and a reference photo has to learn.

World coordinates: X to the right, Y up, Z away from the viewer, in metres; water lies at Y = 0.

The files, from the bottom up:

    materials      what a pixel can be made of: its class in the mask, its colour, its texture
    styles         lights and seasons
    noise          fractal noise, of which terrain, textures, clouds and waves are made
    stamps         small upright pictures of things: trees, houses, boats
    view           the camera, the ground it sees, and the fields over the picture's pixels
    ground         heights of the ground and what covers it
    things         what stands on the ground or floats on the water
    land_scenes    one function a scene without open water,
    water_scenes   and one a scene with it
    scenes         all scenes with how often each is drawn; the layout of a seed
    captions       what a layout in a style shows, and sentences that say it
    render         light, haze, sky and water: the picture of a layout in a style
    write          a whole data set on disk
"""
