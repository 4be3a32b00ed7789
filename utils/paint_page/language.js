// What the page says, in English and in Chinese. Elements name their sentence in data-t (their text), data-t-title or data-t-placeholder.

import { remember, settings } from "./settings.js";

const WORDS = {
  classes: ["Classes", "类别"],
  search: ["Search", "搜索类别"],
  nothing_found: ["No class of that name", "没有这个类别"],
  brush: ["Brush", "画笔"],
  eraser: ["Eraser: back to the mask as it was opened", "橡皮：擦回打开时的样子"],
  fill: ["Fill", "填充"],
  line: ["Straight line; Shift keeps it level or upright", "直线，按住 Shift 保持水平或竖直"],
  horizon: ["Horizon: all below it becomes this class", "地平线：线以下全部填成当前类别"],
  pick: ["Pick a class (Alt + click with any tool)", "吸管（任意工具下 Alt + 单击）"],
  size: ["Size", "笔宽"],
  undo: ["Undo", "撤销"],
  redo: ["Redo", "重做"],
  clear: ["Cover all with this class", "清空：整张填成当前类别"],
  open: ["Open", "打开"],
  save: ["Save", "保存"],
  save_picture: ["Picture", "图片"],
  save_mask: ["Mask", "掩码"],
  save_pair: ["Both, as a pair", "图片和掩码（zip）"],
  mask: ["Mask", "掩码"],
  picture: ["Picture", "画面"],
  opacity: ["Mask over picture", "掩码不透明度"],
  side: ["Side by side", "并排"],
  full: ["Full", "大图"],
  light: ["Light", "光线"],
  light_hint: ["The picture takes its light and colours from this photo.", "画面的光线和颜色取自这张参考图。"],
  own_photo: ["Your own photo", "用自己的照片作参考图"],
  more: ["More", "更多"],
  defaults: ["Back to the start", "恢复默认"],
  usual: ["automatic", "自动"],
  seed: ["Seed", "种子"],
  another: ["Another", "换一张"],
  name: ["File name", "文件名"],
  name_hint: ["With the seed it decides which picture it is, as in MainTest.py.", "与种子一起决定出图结果，和 MainTest.py 一致。"],
  live: ["Paint while drawing", "边画边出图"],
  paint: ["Paint", "出图"],
  stop: ["Stop", "停止"],
  language: ["中文", "English"],
  theme: ["Light or dark", "切换深浅色"],
  help: ["Keys", "快捷键"],
  close: ["Close", "关闭"],
  open_title: ["Begin with", "从哪里开始"],
  examples: ["An example", "示例"],
  mask_file: ["A mask’s file…", "打开掩码文件…"],
  mask_file_hint: ["PNG, 8 or 16 bits, values 0–28", "PNG，8 或 16 位，取值 0–28"],
  photo_file: ["A photo…", "打开照片…"],
  photo_hint: ["Its mask is drawn by the judge, and its light is taken too.", "由分割网络自动标出掩码，光线也取自这张照片。"],
  no_judge: ["Needs a judge: MainTrain.py --system judge trains one.", "需要先训练分割网络：MainTrain.py --system judge"],
  shipped: ["the run that comes with the program", "程序自带的模型"],
  waiting: ["Draw something", "画点什么吧"],
  queued: ["Waiting its turn", "排队中"],
  looking: ["Looking at the photo", "正在从照片中提取掩码"],
  painting: ["Painting", "正在出图"],
  first_look: ["A first look", "快速预览"],
  done: ["Done in", "用时"],
  seconds: ["s", "秒"],
  stopped: ["Stopped", "已停止"],
  superseded: ["Another window is painting now", "另一个窗口正在出图"],
  away: ["The server does not answer; waiting for it", "服务没有响应，等待恢复中"],
  back: ["The server is back", "服务已恢复"],
  keys: [
    "B brush · E eraser · G fill · L line · H horizon · I pick|[ ] or wheel: size|Ctrl Z, Ctrl Shift Z: undo, redo|" +
      "P paint · Esc stop · N another|V view · S save the picture · M save the mask · O open|" +
      "On the mask: arrows move, Space draws, Enter fills",
    "B 画笔 · E 橡皮 · G 填充 · L 直线 · H 地平线 · I 吸管|[ ] 或滚轮：笔宽|Ctrl Z 撤销 · Ctrl Shift Z 重做|" +
      "P 出图 · Esc 停止 · N 换一张|V 切换视图 · S 保存图片 · M 保存掩码 · O 打开|" +
      "焦点在画布上时：方向键移动，空格落笔，回车填充",
  ],
  undrawn: ["The mask to draw on", "绘制掩码的画布"],
};

// Options of the painters, by name; those that are not here are shown by their own name and help.
const OPTIONS = {
  steps: ["Steps", "步数", "More take longer and show more detail.", "步数越多越慢，细节越多。"],
  guidance: ["Follow the mask", "贴合掩码", "1 for no guidance.", "1 表示不加引导。"],
  ref_guidance: ["Follow the photo", "贴合参考图", "1 for no guidance.", "1 表示不加引导。"],
  text_guidance: ["Follow the words", "贴合文字", "1 for no guidance.", "1 表示不加引导。"],
  text_tone: ["Light by words", "光线听文字", "Only where no photo is told.", "只在不用参考图时起作用。"],
  control_weight: ["Hold the layout", "布局约束", "How much the control network adds; 0 for none.", "控制网络的权重，0 表示不用。"],
  prompt: ["A sentence about the picture", "一句话描述画面", "", ""],
  negative_prompt: ["What is not wanted", "不想出现的内容", "", ""],
  color_match: ["Colour match", "色彩匹配", "How the finished picture’s colours are moved to the photo’s.", "成图的颜色向参考图靠拢的方式。"],
  sampler: ["Sampler", "采样器", "", ""],
  guidance_low: ["Guide from noise level", "引导下限", "Only above this share of the noise.", "噪声低于该比例时不引导。"],
  guidance_high: ["Guide to noise level", "引导上限", "Only up to this share of the noise.", "噪声高于该比例时不引导。"],
  guidance_rescale: ["Tame contrast", "抑制对比度", "Takes back the contrast that guidance adds.", "收回引导带来的多余对比度。"],
  ref_start: ["Start from noise", "起始噪声", "Below 1 the photo’s own layout shows.", "小于 1 时会带出参考图本身的构图。"],
  prior_start: ["Start from an estimate", "估计起点", "Below 1 from what such a layout and photo usually give; 1: from pure noise.", "小于 1 时从按布局和参考图估计的画面开始，1 表示从纯噪声开始。"],
  tile: ["Decode in tiles", "分块解码", "Pixels a side, where memory is short; 0: at once.", "内存不足时按此边长（像素）分块，0 表示不分块。"],
  style_noise: ["Freedom of style", "风格自由度", "0: exactly the photo’s style.", "0 表示完全采用参考图的风格。"],
};

// What the server refuses, by the kind that it names beside a sentence in English.
const REFUSALS = {
  "cannot be decoded": "文件无法读取：已损坏，或格式不对",
  "not a mask": "这不是掩码：掩码只有一个通道",
  "label over 28": "掩码中有大于 28 的取值",
  "not a photograph": "这不是照片",
  "too many pixels": "图片太大，上限 5000 万像素",
  "too large": "文件过大，上限 16 MB",
  busy: "同时上传的人太多，请稍后再试",
  internal: "服务出错，详情见终端",
};

const column = () => (settings.language === "zh" ? 1 : 0);

export function say(key) {
  return WORDS[key] ? WORDS[key][column()] : key;
}

/** Why the server has refused; in English where there are no words for it. */
export function sayFailure({ kind, message }) {
  return (settings.language === "zh" && REFUSALS[kind]) || message;
}

/** What an option is called, and what it does. */
export function sayOption(option) {
  const words = OPTIONS[option.name];
  if (!words) return [option.name.replaceAll("_", " "), option.help];
  return [words[column()], words[2 + column()]];
}

export function className(one) {
  return settings.language === "zh" ? one.zh : one.en;
}

const listeners = [];

/** Has `show` called now, and whenever the language changes. */
export function inEachLanguage(show) {
  listeners.push(show);
  show();
}

export function changeLanguage() {
  remember({ language: settings.language === "zh" ? "en" : "zh" });
  translate();
}

export function translate() {
  document.documentElement.lang = settings.language === "zh" ? "zh-CN" : "en";
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = say(element.dataset.t);
  for (const element of document.querySelectorAll("[data-t-title]")) {
    element.title = say(element.dataset.tTitle);
    element.setAttribute("aria-label", element.title);
  }
  for (const element of document.querySelectorAll("[data-t-placeholder]")) element.placeholder = say(element.dataset.tPlaceholder);
  for (const show of listeners) show();
}
