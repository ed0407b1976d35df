// The few things that every part of the page does with the document. Text goes in as text; nothing here takes HTML.

export const $ = (selector, root = document) => root.querySelector(selector);
export const part = (root, name) => root.querySelector(`[data-part="${name}"]`);
export const stamp = name => document.getElementById(`${name}-template`).content.firstElementChild.cloneNode(true);

export function element(tag, fields = {}, ...children) {
  const node = Object.assign(document.createElement(tag), fields);
  node.append(...children);
  return node;
}

/** A line that says how something went. The tone is a colour only beside the words. */
export function say(node, text, tone = '') {
  node.textContent = text;
  node.dataset.tone = tone;
}

export const label = (node, text) => node.setAttribute('aria-label', text);

/** A button that does nothing now stays in the order of focus, so that the focus does not fall off the page. */
export function setIdle(button, isIdle) {
  if (isIdle) button.setAttribute('aria-disabled', 'true');
  else button.removeAttribute('aria-disabled');
}

export const isIdle = button => button.getAttribute('aria-disabled') === 'true';

/** Once per frame, and also in a tab that is not looked at, where there are no frames. */
export const soon = act => (document.hidden ? setTimeout(act, 50) : requestAnimationFrame(act));
