// What a page must have for everybody to use it, computed where it is shown. Each check gives what is wrong, in words.

const pixel = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
const colours = new Map();

// Any colour that a style can have, as red, green, blue and opacity.
function colour(text) {
  if (!colours.has(text)) {
    pixel.clearRect(0, 0, 1, 1);
    pixel.fillStyle = text;
    pixel.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = pixel.getImageData(0, 0, 1, 1).data;
    colours.set(text, [r, g, b, a / 255]);
  }
  return colours.get(text);
}

const over = (top, under) => [0, 1, 2].map((at) => top[at] * top[3] + under[at] * (1 - top[3])).concat(1);

// By WCAG 2, from 1 to 21.
function contrast(one, other) {
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const [dark, bright] = [light(one), light(other)].sort((a, b) => a - b);
  return (bright + 0.05) / (dark + 0.05);
}

function ancestors(element) {
  const all = [];
  for (let at = element; at; at = at.parentElement) all.push(at);
  return all;
}

// The colour behind an element; text in a drawing lies on the last box of its group.
function behind(element) {
  const layers = [];
  const box = element.closest('svg') && [...(element.closest('g')?.querySelectorAll(':scope > rect') ?? [])].pop();
  if (box) layers.push(colour(getComputedStyle(box).fill));
  for (const at of ancestors(element)) layers.push(colour(getComputedStyle(at).backgroundColor));
  return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255, 1]);
}

const opacity = (element) => ancestors(element).reduce((all, at) => all * Number(getComputedStyle(at).opacity), 1);

// In sight: not hidden, not pushed out of the page, not made a pixel large for those who listen.
function isSeen(element, box) {
  if (!element.checkVisibility({ visibilityProperty: true, opacityProperty: true })) return false;
  return box.width > 1 && box.height > 1 && box.right > 0 && !ancestors(element).some((at) => at.matches('.sr, .signs'));
}

const name = (element) => {
  const said = element.textContent.replace(/\s+/g, ' ').trim().slice(0, 40);
  const from = element.parentElement ? `${element.parentElement.tagName.toLowerCase()}.${element.parentElement.getAttribute('class') ?? ''} > ` : '';
  return `${from}${element.tagName.toLowerCase()}.${element.getAttribute('class') ?? ''} "${said}"`;
};

function contrasts() {
  const wrong = new Set();
  const look = (element, text, least, what) => {
    const back = behind(element);
    const [r, g, b, a] = colour(text);
    const found = contrast(over([r, g, b, a * opacity(element)], back), back);
    if (found < least) wrong.add(`${what} ${name(element)}: ${found.toFixed(2)} of ${least} (${text})`);
  };
  const least = (style) => {
    const size = parseFloat(style.fontSize);
    return size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || element.closest('script, style, option, title, :disabled, [aria-disabled=true]')) continue;
    const range = document.createRange();
    range.selectNodeContents(texts.currentNode);
    if (!isSeen(element, range.getBoundingClientRect())) continue;
    const style = getComputedStyle(element);
    look(element, element.closest('svg') ? style.fill : style.color, least(style), 'text');
  }
  for (const field of document.querySelectorAll('input, select, textarea')) {
    if (field.type === 'hidden' || !isSeen(field, field.getBoundingClientRect())) continue;
    look(field, getComputedStyle(field).color, 4.5, 'field');
    if (field.placeholder) look(field, getComputedStyle(field, '::placeholder').color, 4.5, 'placeholder');
  }
  // A sign says what its colour says by its shape, so the shape must be seen.
  for (const sign of document.querySelectorAll('svg.st')) {
    if (isSeen(sign, sign.getBoundingClientRect())) look(sign, getComputedStyle(sign).color, 3, 'sign');
  }
  return [...wrong];
}

function structure() {
  const wrong = [];
  const all = (css) => [...document.querySelectorAll(css)];
  if (!document.documentElement.lang) wrong.push('no language');
  if (!document.title.trim()) wrong.push('no title');
  if (all('h1').length !== 1) wrong.push(`${all('h1').length} main headings`);
  const ids = all('[id]').map((element) => element.id);
  for (const id of new Set(ids.filter((id, at) => ids.indexOf(id) !== at))) wrong.push(`the id ${id} twice`);
  for (const from of ['for', 'aria-labelledby', 'aria-describedby', 'aria-controls', 'list', 'form']) {
    for (const element of all(`[${from}]`)) {
      for (const id of element.getAttribute(from).split(' ')) if (!ids.includes(id)) wrong.push(`${from}=${id} leads nowhere`);
    }
  }
  return wrong;
}

// What is wider than the window, and not in a box that scrolls; and boxes that scroll by a hair, which is never meant.
function overflow() {
  const all = [...document.body.querySelectorAll('*')];
  const byHair = (by) => by > 0 && by <= 4;
  const wrong = all.filter((element) => {
    const { overflowX, overflowY } = getComputedStyle(element);
    return (overflowX === 'auto' && byHair(element.scrollWidth - element.clientWidth)) || (overflowY === 'auto' && byHair(element.scrollHeight - element.clientHeight));
  }).map((element) => `${name(element)} scrolls by a hair`);
  if (document.documentElement.scrollWidth <= innerWidth) return wrong;
  const scrolls = (element) => ancestors(element.parentElement).some((at) => at !== document.body && at !== document.documentElement && getComputedStyle(at).overflowX !== 'visible');
  const wide = all.filter((element) => element.getBoundingClientRect().right > innerWidth + 1 && !scrolls(element));
  return [...wrong, `${document.documentElement.scrollWidth} px wide`, ...wide.slice(0, 5).map(name)];
}

// Whether one sees where the focus is, in the theme that is on, and it is not below something else.
function focus(element) {
  const wrong = [];
  const rings = (at) => {
    const style = getComputedStyle(at);
    return style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2 && contrast(colour(style.outlineColor), behind(at.parentElement)) >= 3;
  };
  // In drawings a shape inside the link has the ring; a radio button that is not drawn has it at what is drawn instead.
  const strokes = [...element.querySelectorAll('.hit, .rim')].some((at) => contrast(colour(getComputedStyle(at).stroke), behind(element)) >= 3);
  const stand = element.matches('input[type=radio]') ? element.nextElementSibling : element;
  if (!rings(stand) && !strokes) wrong.push(`one does not see that ${name(element)} has the focus`);
  const [box] = stand.getClientRects();
  const left = Math.max(box.left, 0), right = Math.min(box.right, innerWidth), top = Math.max(box.top, 0), bottom = Math.min(box.bottom, innerHeight);
  const points = [[(left + right) / 2, (top + bottom) / 2], [left + 2, top + 2], [right - 2, bottom - 2]];
  const isThere = points.some(([x, y]) => {
    const there = document.elementFromPoint(x, y);
    return there && (stand.contains(there) || there.contains(element)) && !there.matches('html, body, main');
  });
  if (!isThere) wrong.push(`${name(element)} has the focus, but is out of sight`);
  return wrong;
}

// From now on each thing inside `css` is looked at when it gets the focus for the first time.
function watch(css) {
  const all = document.querySelector(css), seen = new Set(), wrong = [];
  addEventListener('focusin', ({ target }) => {
    if (target === all || !all.contains(target) || seen.has(target)) return;
    seen.add(target);
    for (const scheme of ['light', 'dark']) {
      document.documentElement.dataset.theme = scheme;
      wrong.push(...focus(target).map((fault) => `${scheme}: ${fault}`));
    }
    delete document.documentElement.dataset.theme;
  });
  all.tabIndex = -1;
  all.focus({ preventScroll: true });
  window.reached = () => ({ wrong, missed: [...stops(all)].filter((stop) => !seen.has(stop)).map(name), count: seen.size });
  return [...stops(all)].length;
}

// What the Tab key must lead to.
function* stops(all) {
  for (const at of all.querySelectorAll('a[href], button, input:not([type=radio]:not(:checked)), select, textarea, summary, [tabindex]')) {
    if (at.tabIndex >= 0 && !at.disabled && at.checkVisibility({ visibilityProperty: true })) yield at;
  }
}
