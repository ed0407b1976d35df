// What was done on this page, as code that does the same.

import { $, element } from './dom.js';
import { clock } from './words.js';

const MOST = 15;
const COPIED_MS = 1600;

const deeds = [];
let shown = null;
let tongue = 'curl';

/** `code`: the deed in each language, as code.js writes it. */
export function record(title, code) {
  deeds.unshift({ title, code, time: clock(Date.now()) });
  deeds.length = Math.min(deeds.length, MOST);
  show(deeds[0]);
  list();
}

function show(deed) {
  shown = deed;
  const text = deed.code[tongue].shown;
  $('#code').textContent = text;
  $('#console-line').textContent = text.replace(/^(#|\/\/).*\n/, '').replaceAll(/\s*\\?\n\s*/g, ' ');
}

function list() {
  const held = document.activeElement?.closest('#deeds') && shown;
  $('#deeds').replaceChildren(...deeds.map(deedNode));
  // A list that is made anew must not lose the focus that was in it.
  if (held) $('#deeds [aria-current="true"]')?.focus({ preventScroll: true });
}

function deedNode(deed) {
  const button = element('button', { type: 'button', onclick: () => { show(deed); list(); } }, deed.title, element('time', {}, deed.time));
  if (deed === shown) button.setAttribute('aria-current', 'true');
  return element('li', {}, button);
}

async function copy(button) {
  if (!shown) return;
  const text = shown.code[tongue].copied;
  const isDone = await navigator.clipboard?.writeText(text).then(() => true, () => false) || copySelected(text);
  button.textContent = isDone ? 'Copied' : 'Not copied';
  setTimeout(() => { button.textContent = 'Copy'; }, COPIED_MS);
}

/** Outside a secure context there is no clipboard API. */
function copySelected(text) {
  const held = document.activeElement;
  const field = element('textarea', { value: text, className: 'unseen' });
  document.body.append(field);
  field.select();
  const isDone = document.execCommand('copy');
  field.remove();
  held?.focus();
  return isDone;
}

function toggle(button) {
  const isOpen = button.getAttribute('aria-expanded') !== 'true';
  button.setAttribute('aria-expanded', String(isOpen));
  $('#console-body').hidden = !isOpen;
}

export function start() {
  const button = $('#console-toggle');
  button.onclick = () => toggle(button);
  $('#console-copy').onclick = event => copy(event.currentTarget);
  for (const radio of document.querySelectorAll('[name="tongue"]')) {
    radio.onchange = () => { tongue = radio.value; if (shown) show(shown); };
  }
}
