// Sends: to one, to all, to all but one, to a topic.

import { $, isIdle, say, setIdle } from './dom.js';
import { Problem, parse, request } from './api.js';
import { requestCode } from './code.js';
import { record } from './deeds.js';
import { happened } from './happenings.js';
import { keys } from './keys.js';
import { duration, plural } from './words.js';

export const TOPICS = ['news', 'builds'];
const MANY = 100;
/** Of many, so many lines are shown as code, and long data is shown short. */
const FEW = 3;
const LONG = 200;
const PATH = '/v1/notifications';

/** What stands in the form until somebody writes something else. */
const SAMPLES = [
  ['Order shipped', '{"order": 7, "carrier": "post"}'],
  ['Build passed', '{"branch": "main", "seconds": 41}'],
  ['You were mentioned', '"ada: can you look at this?"'],
  ['Invoice due', '{"invoice": "2041", "amount": "12.50"}'],
  ['Door opened', '{"door": "garage", "by": "key 3"}'],
];
let sample = 0;

const audiences = form => ({
  ada: { users: ['ada'] }, bob: { users: ['bob'] }, everyone: {},
  'not-ada': { exclude_users: ['ada'] }, 'not-bob': { exclude_users: ['bob'] },
  topic: { topics: [form.elements.topic.value] },
})[form.elements.to.value];

const isJson = text => { try { JSON.parse(text); return true; } catch { return false; } };

/** Put together by hand, since data is to go out as it was typed; parsing and printing would round and reorder. */
export function bodyOf(fields, dataText) {
  const parts = Object.entries(fields).map(([name, value]) => `${JSON.stringify(name)}: ${JSON.stringify(value)}`);
  parts.push(`"data": ${isJson(dataText) ? dataText.trim() : JSON.stringify(dataText)}`);
  return `{${parts.join(', ')}}`;
}

function fieldsOf(form) {
  const { subject, ttl, collapse, transient } = form.elements;
  const life = ttl.value.trim();
  return {
    ...audiences(form),
    ...(subject.value && { subject: subject.value }),
    ...(life && { ttl: /^\d+$/.test(life) ? Number(life) : life }),
    ...(collapse.value && { collapse_key: collapse.value }),
    ...(transient.checked && { durability: 'transient' }),
  };
}

/** Publishes one; its id. Throws a Problem. */
export async function publish(fields, dataText) {
  const wanted = { method: 'POST', path: PATH, who: 'key', body: bodyOf(fields, dataText) };
  record(`Send “${fields.subject ?? 'no subject'}”`, requestCode(wanted));
  const answer = await request({ ...wanted, token: keys.api_key });
  const { id } = await answer.json();
  happened('sent', { id, subject: fields.subject, isTransient: fields.durability === 'transient' });
  return id;
}

const shortened = data => (data.length > LONG ? JSON.stringify(`${data.slice(1, 40)}…`) : data);

/** Publishes many in one request, as NDJSON: one line each, answered line by line. How many were accepted. */
export async function publishMany(count, fields, dataOf) {
  const linesOf = (most, data) => Array.from({ length: most }, (_, i) => bodyOf({ ...fields, subject: `${fields.subject} ${i + 1}` }, data(i + 1))).join('\n');
  const type = 'application/x-ndjson';
  const wanted = { method: 'POST', path: PATH, who: 'key', type };
  const short = linesOf(FEW, n => shortened(dataOf(n)));
  record(`Send ${count} in one request`, requestCode({ ...wanted, body: short }, `${FEW} of the ${count} lines`));
  const answer = await request({ ...wanted, body: linesOf(count, dataOf), token: keys.api_key });
  const outcomes = (await answer.text()).split('\n').filter(Boolean).map(parse);
  const accepted = outcomes.filter(outcome => outcome.accepted);
  if (accepted.length) happened('sent', { id: accepted.at(-1).id, subject: `${fields.subject} ${count}`, count: accepted.length });
  const refused = outcomes.find(outcome => !outcome.accepted);
  if (refused) throw new Problem(400, refused);
  return accepted.length;
}

/** Runs one sending at a time, and says how it went. */
async function sending(form, act) {
  const buttons = [$('button[type="submit"]', form), $('#send-many')];
  if (buttons.some(isIdle)) return;
  buttons.forEach(button => setIdle(button, true));
  const began = performance.now();
  try {
    const what = await act();
    say($('#sent-says'), `${what} in ${duration(performance.now() - began)}.`, 'ok');
  } catch (error) {
    say($('#sent-says'), refusal(error), 'bad');
  }
  buttons.forEach(button => setIdle(button, false));
}

const refusal = ({ message, pointer, code }) => `Not sent. ${message}${pointer ? ` (at ${pointer})` : ''}${code ? ` [${code}]` : ''}`;

async function sendOne(form) {
  const fields = fieldsOf(form);
  await publish(fields, form.elements.data.value);
  nextSample(form);
  return fields.durability === 'transient' ? 'Accepted, not stored,' : 'Accepted and stored';
}

async function sendMany(form) {
  const fields = { ...fieldsOf(form), subject: form.elements.subject.value || 'No.' };
  const count = await publishMany(MANY, fields, n => `{"n": ${n}}`);
  return `${plural(count, 'notification')} accepted and stored`;
}

function nextSample(form) {
  const { subject, data } = form.elements;
  if (subject.value !== SAMPLES[sample][0] || data.value !== SAMPLES[sample][1]) return;
  sample = (sample + 1) % SAMPLES.length;
  [subject.value, data.value] = SAMPLES[sample];
}

function tellDataKind(text) {
  const kind = /^\s*[[{]/.test(text) ? 'Not valid JSON' : 'Plain text';
  $('#data-kind').textContent = isJson(text) ? 'Goes out as JSON, as you wrote it.' : `${kind}: goes out as a JSON string.`;
}

export function start() {
  const form = $('#composer');
  const { subject, data, topic } = form.elements;
  topic.append(...TOPICS.map(name => new Option(name)));
  [subject.value, data.value] = SAMPLES[sample];
  topic.onchange = () => { form.elements.to.value = 'topic'; };
  data.oninput = () => tellDataKind(data.value);
  form.onsubmit = event => { event.preventDefault(); sending(form, () => sendOne(form)); };
  form.onkeydown = event => { if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) form.requestSubmit(); };
  $('#send-many').onclick = () => sending(form, () => sendMany(form));
}
