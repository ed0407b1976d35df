// The event stream by the parsing rules of the HTML standard (9.2.6), as a real browser's EventSource applies them: characters,
// line ends, ids, `retry`, comments, pieces of any size, and coming back.

import { artifact, launch, pageOf, SHOWN_MS } from './lib/browser.mjs';
import { equal, holds, run, user } from './lib/cases.mjs';
import { KEY, Node } from './lib/node.mjs';
import { header, Tap } from './lib/tap.mjs';

/** How much later than `retry` a browser on a busy machine may come back. */
const LATE_MS = 30_000;
/** Timers may ring a little early. */
const EARLY_MS = 50;

const browser = await launch();
const node = await Node.start('serve', { session: { keep_alive: '1s' } });

/** What the standard treats specially, or once did: line ends of any kind, what begins or ends a field, NUL, BOM, surrogates. */
const CHARACTERS = [
  '\r', '\n', '\r\n', '\n\n', 'one\rtwo\nthree\r\nfour\n\rfive', '\u2028', 'a\u2029b', '\u0085', '\u000b\f', '\0', 'a\0b', '\ufeff', '\ufeffa\ufeff', ' ',
  ' a', '  a ', ':', ': a', 'data: x', '\ndata: x\n\nevent: forged\nid: 7\nretry: 1\n\n', 'id: \0', '', '\ud800', 'a\udfff', '\udc00\ud800', '\ufffd', '\ufffe\uffff',
  'é', 'ß漢字', '👩‍👩‍👧‍👦 🏳️‍🌈', '\u{10ffff}', 'שלום', '\u202egnp', ...Array.from({ length: 33 }, (_, code) => `x${String.fromCharCode(code)}y`), '\x7f', '\x80\x9f',
];

/** Opens an EventSource and notes all that it fires, as text that any driver hands on unharmed. */
function open(page, path) {
  return page.evaluate(path => {
    const seen = window.seen = { events: [], opened: 0, errors: 0, messages: 0 };
    const source = window.source = new EventSource(path);
    source.onopen = () => { seen.opened += 1; };
    source.onerror = () => { seen.errors += 1; };
    source.onmessage = () => { seen.messages += 1; };
    const note = event => {
      const body = JSON.parse(event.data);
      seen.events.push({
        name: event.type, id: body.id, ids: body.ids, data: JSON.stringify(body.data), lines: event.data.split(/[\r\n]/).length,
        length: event.data.length, lastEventId: event.lastEventId, origin: event.origin,
      });
    };
    for (const name of ['notification', 'read', 'withdrawn', 'state', 'gap', 'delivery_stalled', 'transient_dropped', 'forged', 'error_told']) {
      source.addEventListener(name, note);
    }
  }, path);
}

const seen = page => page.evaluate(() => window.seen);

async function until(page, what, condition, argument, timeout = SHOWN_MS) {
  try {
    await page.waitForFunction(condition, argument, { timeout, polling: 20 });
  } catch {
    const { events, ...rest } = await seen(page);
    throw new Error(`${what} within ${timeout} ms; the page saw ${JSON.stringify({ ...rest, events: events.slice(-5) })}`);
  }
}

const sawAll = (page, ids, timeout) => until(page, `ids ${ids.slice(-3).join(' ')}`,
  wanted => wanted.every(id => window.seen.events.some(event => event.id === id)), ids, timeout);

async function eventually(what, check, timeout = SHOWN_MS) {
  const deadline = performance.now() + timeout;
  while (!check()) {
    if (performance.now() > deadline) throw new Error(`${what} within ${timeout} ms`);
    await new Promise(resolve => setTimeout(resolve, 10));
  }
}

/** Publishes a body exactly as it is written; the id. */
async function publishText(at, body) {
  const headers = { Authorization: `Bearer ${KEY}`, 'Content-Type': 'application/json' };
  const answer = await fetch(`${at.url}/v1/notifications`, { method: 'POST', headers, body });
  equal(answer.status, 202, await answer.clone().text());
  return (await answer.json()).id;
}

/** A page before a tap before a node. */
async function withTap(at, body) {
  const tap = await Tap.before(at.port);
  const page = await pageOf(browser, tap.url);
  // The stream gets a connection of its own, straight to the front, not the one that the page came by.
  tap.cut();
  try {
    await body(page, tap);
  } finally {
    await page.context().close();
    await tap.close();
  }
}

async function withOwn(settings, body) {
  const own = await Node.start('serve', settings);
  try {
    await body(own);
  } catch (error) {
    console.log(`     the node's log ends: ${await own.log()}`);
    throw error;
  } finally {
    await own.remove();
  }
}

/** The last `retry` that a stream's bytes hold. */
const lastRetry = stream => Number([...(stream?.answer ?? '').toString('latin1').matchAll(/^retry: (\d+)$/gm)].at(-1)?.[1]);

const status = await run({
  every_character_arrives_as_it_was_written: () => withTap(node, async page => {
    const who = user();
    await open(page, `/v1/inbox/stream?ack=none&ticket=${await node.ticket(who)}`);
    await until(page, 'an open stream', () => window.seen.opened === 1);
    const sent = [];
    for (const data of CHARACTERS) sent.push(await node.publish({ users: [who], data, ...(data.isWellFormed() && { subject: data }) }));
    await sawAll(page, sent);
    const { events, messages, errors, opened } = await seen(page);
    equal(events.map(event => event.id), sent, 'once, in order');
    events.forEach((event, at) => equal(event.data, JSON.stringify(CHARACTERS[at]), `data of ${at}`));
    equal([messages, errors, opened, events.filter(event => event.lines !== 1).length], [0, 0, 1, 0], 'messages, errors, openings, broken lines');
  }),

  text_comes_in_the_escapes_it_was_written_in: () => withTap(node, async (page, tap) => {
    const who = user();
    await open(page, `/v1/inbox/stream?ack=none&ticket=${await node.ticket(who)}`);
    // Line breaks between tokens go, those in strings can only be escapes; what stands raw in a string stays raw.
    const id = await publishText(node, `{\r\n\t"users" : ["${who}"],\n\r"data":\r[ "a\\u000ab" ,\n"\\ud83d\\ude00",\r\n"\u2028\ufeff" ] }\r\n`);
    await sawAll(page, [id]);
    equal((await seen(page)).events[0].data, JSON.stringify(['a\nb', '😀', '\u2028\ufeff']));
    const bytes = tap.streams()[0].answer.toString('utf8');
    holds(bytes.includes('"data":["a\\u000ab","\\ud83d\\ude00","\u2028\ufeff"]}\n\n'), 'the bytes are not as they were written');
  }),

  very_long_data_arrives_whole: () => withTap(node, async page => {
    const who = user();
    await open(page, `/v1/inbox/stream?ack=none&ticket=${await node.ticket(who)}`);
    const data = '漢\r\n😀x'.repeat(17_000);
    const sent = [await node.publish({ users: [who], data }), await node.publish({ users: [who], data: 'after' })];
    await sawAll(page, sent);
    const { events } = await seen(page);
    equal(events.map(event => event.data === JSON.stringify(event.id === sent[0] ? data : 'after')), [true, true]);
  }),

  pieces_of_one_byte_change_nothing: () => withTap(node, async (page, tap) => {
    const who = user();
    tap.inBytes = true;
    await open(page, `/v1/inbox/stream?ack=none&ticket=${await node.ticket(who)}`);
    const sent = [];
    for (const data of ['é', '漢字', '😀', '\u2028', '\r\n', '\u{10ffff}']) sent.push(await node.publish({ users: [who], data }));
    await sawAll(page, sent, 60_000);
    const { events, messages, errors } = await seen(page);
    equal(events.map(event => event.data), ['é', '漢字', '😀', '\u2028', '\r\n', '\u{10ffff}'].map(data => JSON.stringify(data)));
    equal([messages, errors], [0, 0], 'messages and errors');
  }),

  a_cursor_sets_the_last_event_id_and_fires_nothing: () => withTap(node, async (page, tap) => {
    const who = user();
    await open(page, `/v1/inbox/stream?ack=none&ticket=${await node.ticket(who)}`);
    const ids = () => [...(tap.streams()[0]?.answer ?? '').toString('latin1').matchAll(/^id: (.*)$/gm)].map(match => match[1]);
    await eventually('a cursor before any entry', () => ids().length === 1);
    const first = await node.publish({ users: [who], data: 1 });
    await eventually('a cursor after the entry', () => ids().length === 2);
    const second = await node.publish({ users: [who], data: 2 });
    await sawAll(page, [first, second]);
    const { events, messages } = await seen(page);
    // An entry's event bears the cursor that came before it: its own follows.
    equal(events.map(event => event.lastEventId), ids().slice(0, 2), 'last event ids');
    equal([events.length, messages], [2, 0], 'events, and messages without a name');
  }),

  coming_back_brings_the_last_id_and_loses_and_repeats_nothing: () => withTap(node, async (page, tap) => {
    const who = user();
    await open(page, `/v1/inbox/stream?ack=none&ticket=${await node.ticket(who)}`);
    const sent = [];
    for (let round = 1; round <= 3; round += 1) {
      sent.push(await node.publish({ users: [who], data: `seen ${round}` }));
      await sawAll(page, sent);
      const stream = tap.streams().at(-1);
      const told = word => stream.answer.lastIndexOf(`\n${word}: `);
      await eventually('the cursor after it', () => told('id') > told('event'));
      const last = [...stream.answer.toString('latin1').matchAll(/^id: (.*)$/gm)].at(-1)[1];
      holds(tap.cut() > 0, 'nothing was open to be cut');
      sent.push(await node.publish({ users: [who], data: `missed ${round}` }));
      await sawAll(page, sent, LATE_MS);
      equal(header(tap.streams().at(-1).head, 'last-event-id'), last, 'Last-Event-ID');
    }
    equal((await seen(page)).events.map(event => event.id), sent, 'once, in order');
  }),

  the_time_of_retry_is_kept: () => withTap(node, async (page, tap) => {
    await open(page, `/v1/inbox/stream?ticket=${await node.ticket(user())}`);
    await until(page, 'an open stream', () => window.seen.opened === 1);
    await eventually('a stream', () => tap.streams().length === 1);
    const [stream] = tap.streams();
    await eventually('retry', () => lastRetry(stream) > 0);
    const retry = lastRetry(stream);
    tap.cut();
    await eventually('a second stream', () => tap.streams().length === 2, retry + LATE_MS);
    const waited = tap.streams()[1].began - stream.ended;
    holds(waited >= retry - EARLY_MS && waited <= retry + LATE_MS, `came back after ${waited} ms, told to wait ${retry}`);
  }),

  comments_keep_the_stream_and_fire_nothing: () => withTap(node, async (page, tap) => {
    const who = user();
    await open(page, `/v1/inbox/stream?ack=none&ticket=${await node.ticket(who)}`);
    const comments = () => tap.streams()[0]?.answer.toString('latin1').split(': keep-alive\n\n').length - 1;
    await eventually('two keep-alives', () => comments() >= 2);
    const sent = await node.publish({ users: [who], data: 'after silence' });
    await sawAll(page, [sent]);
    const { events, messages, errors, opened } = await seen(page);
    equal([events.length, messages, errors, opened], [1, 0, 0, 1], 'events, messages, errors, openings');
  }),

  each_event_has_its_name: () => withTap(node, async page => {
    const who = user();
    await open(page, `/v1/inbox/stream?ack=explicit&state=1&ticket=${await node.ticket(who)}`);
    const sent = await node.publish({ users: [who], data: 1 });
    await sawAll(page, [sent]);
    const key = { Authorization: `Bearer ${KEY}` };
    equal((await fetch(`${node.url}/v1/notifications/${sent}`, { method: 'DELETE', headers: key })).status, 200);
    await until(page, 'the withdrawal', () => window.seen.events.some(event => event.name === 'withdrawn'));
    const { events, messages } = await seen(page);
    equal(events.map(event => event.name), ['state', 'notification', 'withdrawn']);
    equal(messages, 0, 'messages without a name');
  }),

  a_drained_stream_is_taken_up_again: () => withOwn({ drain: { timeout: '10s', spread: '3s' } }, own => withTap(own, async (page, tap) => {
    const who = user();
    await open(page, `/v1/inbox/stream?ack=none&ticket=${await own.ticket(who)}`);
    const sent = [await own.publish({ users: [who], data: 1 })];
    await sawAll(page, sent);
    const [stream] = tap.streams();
    const before = stream.answer.length;
    equal(await own.stop(), 0, 'exit status');
    const told = [...stream.answer.subarray(before).toString('latin1').matchAll(/^retry: (\d+)$/gm)];
    equal(told.length, 1, 'retry at the end of the stream');
    await own.start();
    sent.push(await own.publish({ users: [who], data: 2 }));
    await sawAll(page, sent, 30_000);
    const waited = tap.streams()[1].began - stream.ended;
    holds(waited >= Number(told[0][1]) - EARLY_MS, `came back after ${waited} ms, told to wait ${told[0][1]}`);
    equal((await seen(page)).events.map(event => event.id), sent, 'once, in order');
  })),
}, async name => {
  const page = browser.contexts().flatMap(context => context.pages()).at(-1);
  if (page) await page.screenshot({ path: artifact(`failed-sse-${name}.png`) });
});

await browser.close();
if (status) console.log(`     the shared node's log ends: ${await node.log()}`);
await node.remove();
process.exit(status);
