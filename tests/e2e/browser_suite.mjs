// What a browser's own EventSource, WebSocket and fetch make of a node: tickets, resumption, cuts, restarts, closes.

import { artifact, launch, pageOf, SHOWN_MS } from './lib/browser.mjs';
import { equal, holds, run, user } from './lib/cases.mjs';
import { Cutter, Node, token } from './lib/node.mjs';

const browser = await launch();
const node = await Node.start();

/** Opens an EventSource in the page and notes what it fires. */
function openEventSource(page, path) {
  return page.evaluate(path => {
    const seen = window.seen = { ids: [], lastEventIds: [], opened: 0, errors: 0, withdrawn: [], read: [] };
    const source = window.source = new EventSource(path);
    source.onopen = () => { seen.opened += 1; };
    source.onerror = () => { seen.errors += 1; };
    source.addEventListener('notification', event => {
      seen.ids.push(JSON.parse(event.data).id);
      seen.lastEventIds.push(event.lastEventId);
    });
    source.addEventListener('withdrawn', event => seen.withdrawn.push(JSON.parse(event.data)));
    source.addEventListener('read', event => seen.read.push(...JSON.parse(event.data).ids));
  }, path);
}

/** Opens a WebSocket in the page and notes its frames and its close. */
function openWebSocket(page, path, protocol = 'postrider.v1') {
  return page.evaluate(([path, protocol]) => {
    const seen = window.seen = { ids: [], frames: [], cursor: undefined, closed: undefined, protocol: undefined };
    const socket = window.socket = new WebSocket(new URL(path, location.href.replace(/^http/, 'ws')), protocol);
    socket.onopen = () => { seen.protocol = socket.protocol; };
    socket.onclose = event => { seen.closed = { code: event.code, reason: event.reason }; };
    socket.onmessage = event => {
      const frame = JSON.parse(event.data);
      seen.frames.push(frame);
      if (frame.type === 'notification') seen.ids.push(frame.id);
      if (frame.type === 'cursor') seen.cursor = frame.cursor;
    };
  }, [path, protocol]);
}

const seen = page => page.evaluate(() => window.seen);

/** Waits until the page has seen what is asked for; tells what it saw where it did not. */
async function until(page, what, condition, argument, timeout = SHOWN_MS) {
  try {
    await page.waitForFunction(condition, argument, { timeout, polling: 20 });
  } catch {
    throw new Error(`${what} within ${timeout} ms; the page saw ${JSON.stringify(await seen(page))}`);
  }
}

const sawIds = ids => [`ids ${ids.join(' ')}`, wanted => wanted.every(id => window.seen.ids.includes(id)), ids];

/** At least once, in order: what comes again comes under the same id. */
const inOrder = ids => [...new Set(ids)];

/** A page of the node's origin for one case. */
async function withPage(url, body) {
  const page = await pageOf(browser, url);
  try {
    await body(page);
  } finally {
    await page.context().close();
  }
}

async function withOwn(body) {
  const own = await Node.start();
  try {
    await body(own);
  } catch (error) {
    console.log(`     the node's log ends: ${await own.log()}`);
    throw error;
  } finally {
    await own.remove();
  }
}

async function withCutter(body) {
  const cutter = await Cutter.before(node.port);
  try {
    await body(cutter);
  } finally {
    await cutter.close();
  }
}

const status = await run({
  event_source_opens_with_a_ticket: () => withPage(node.url, async page => {
    const who = user();
    const first = await node.publish({ users: [who], data: 1 });
    await openEventSource(page, `/v1/inbox/stream?ticket=${await node.ticket(who)}`);
    await until(page, ...sawIds([first]));
    const second = await node.publish({ users: [who], data: 2 });
    await until(page, ...sawIds([first, second]));
    equal((await seen(page)).ids, [first, second], 'once, in order');
  }),

  event_source_resumes_by_itself_after_a_cut: () => withCutter(cutter => withPage(cutter.url, async page => {
    const who = user();
    // `none`: nothing is settled, so that only Last-Event-ID keeps what was seen from coming again.
    await openEventSource(page, `/v1/inbox/stream?ack=none&ticket=${await node.ticket(who)}`);
    const first = await node.publish({ users: [who], data: 1 });
    await until(page, ...sawIds([first]));
    // The bare id block fires no event; it has gone out in the same send as the entry.
    holds(cutter.cut() > 0, 'nothing was open to be cut');
    const second = await node.publish({ users: [who], data: 2 });
    await until(page, 'a second opening', () => window.seen.opened >= 2);
    await until(page, ...sawIds([first, second]));
    const { ids, lastEventIds, errors } = await seen(page);
    equal(ids, [first, second], 'once, in order');
    holds(errors >= 1, 'the cut was not felt');
    holds(lastEventIds.at(-1) !== '', 'no Last-Event-ID was known');
  })),

  event_source_resumes_by_itself_after_a_restart: () => withOwn(own => withPage(own.url, async page => {
    const who = user();
    await openEventSource(page, `/v1/inbox/stream?ticket=${await own.ticket(who)}`);
    const first = await own.publish({ users: [who], data: 1 });
    await until(page, ...sawIds([first]));
    equal(await own.stop(), 0, 'exit status');
    await own.start();
    const second = await own.publish({ users: [who], data: 2 });
    await until(page, ...sawIds([first, second]));
    equal(inOrder((await seen(page)).ids), [first, second], 'in order');
  })),

  event_source_resumes_by_itself_after_a_kill: () => withOwn(own => withPage(own.url, async page => {
    const who = user();
    await openEventSource(page, `/v1/inbox/stream?ticket=${await own.ticket(who)}`);
    const first = await own.publish({ users: [who], data: 1 });
    await until(page, ...sawIds([first]));
    const second = await own.publish({ users: [who], data: 2 });
    await own.kill();
    await own.start();
    const third = await own.publish({ users: [who], data: 3 });
    await until(page, ...sawIds([first, second, third]));
    equal(inOrder((await seen(page)).ids), [first, second, third], 'in order');
  })),

  event_source_hears_of_reads_and_withdrawals: () => withPage(node.url, async page => {
    const who = user();
    await openEventSource(page, `/v1/inbox/stream?ack=explicit&ticket=${await node.ticket(who)}`);
    const [read, cancelled] = [await node.publish({ users: [who], data: 1 }), await node.publish({ users: [who], data: 2 })];
    await until(page, ...sawIds([read, cancelled]));
    const headers = { Authorization: `Bearer ${token(who)}`, 'Content-Type': 'application/json' };
    await fetch(`${node.url}/v1/inbox/read`, { method: 'POST', headers, body: JSON.stringify({ ids: [read] }) });
    await until(page, 'the read mark', id => window.seen.read.includes(id), read);
    const key = 'Bearer key-of-the-back-end-with-all-scopes';
    await fetch(`${node.url}/v1/notifications/${cancelled}`, { method: 'DELETE', headers: { Authorization: key } });
    await until(page, 'the withdrawal', id => window.seen.withdrawn.some(mark => mark.id === id && mark.reason === 'cancelled'), cancelled);
  }),

  event_source_gives_up_without_a_good_ticket: () => withPage(node.url, async page => {
    await openEventSource(page, '/v1/inbox/stream?ticket=made-up');
    await until(page, 'a closed EventSource', () => window.source.readyState === EventSource.CLOSED);
    equal((await seen(page)).opened, 0);
  }),

  web_socket_speaks_the_subprotocol_and_acknowledges: () => withPage(node.url, async page => {
    const who = user();
    const sent = await node.publish({ users: [who], subject: 'Größe', data: { emoji: '🐎' } });
    await openWebSocket(page, `/v1/inbox/ws?ack=explicit&ticket=${await node.ticket(who)}`);
    await until(page, ...sawIds([sent]));
    const { frames, protocol } = await seen(page);
    equal(protocol, 'postrider.v1');
    equal(frames[0].type, 'hello');
    const entry = frames.find(frame => frame.type === 'notification');
    equal([entry.subject, entry.data], ['Größe', { emoji: '🐎' }]);
    await page.evaluate(id => window.socket.send(JSON.stringify({ type: 'ack', ids: [id] })), sent);
    await settled(sent, 'delivered');
  }),

  web_socket_settles_by_the_browsers_own_pong: () => withPage(node.url, async page => {
    const who = user();
    await openWebSocket(page, `/v1/inbox/ws?ticket=${await node.ticket(who)}`);
    const sent = await node.publish({ users: [who], data: 1 });
    await until(page, ...sawIds([sent]));
    await settled(sent, 'delivered');
  }),

  web_socket_resumes_by_cursor_after_a_cut: () => withCutter(cutter => withPage(cutter.url, async page => {
    const who = user();
    await openWebSocket(page, `/v1/inbox/ws?ack=none&ticket=${await node.ticket(who)}`);
    const first = await node.publish({ users: [who], data: 1 });
    await until(page, ...sawIds([first]));
    await until(page, 'a cursor', () => Boolean(window.seen.cursor));
    const { cursor } = await seen(page);
    cutter.cut();
    await until(page, 'an abnormal close', () => window.seen.closed?.code === 1006);
    const second = await node.publish({ users: [who], data: 2 });
    await openWebSocket(page, `/v1/inbox/ws?ack=none&cursor=${encodeURIComponent(cursor)}&ticket=${await node.ticket(who)}`);
    await until(page, ...sawIds([second]));
    equal((await seen(page)).ids, [second]);
  })),

  web_socket_is_told_when_to_come_back_on_drain: () => withOwn(own => withPage(own.url, async page => {
    await openWebSocket(page, `/v1/inbox/ws?ticket=${await own.ticket(user())}`);
    await until(page, 'hello', () => window.seen.frames.length > 0);
    const ended = own.stop();
    await until(page, 'a close', () => Boolean(window.seen.closed));
    const { code, reason } = (await seen(page)).closed;
    const { code: word, retry_ms: pause } = JSON.parse(reason);
    equal([code, word], [4000, 'drain']);
    holds(pause >= 0 && pause <= 1000, `retry_ms ${pause} is not within drain.spread`);
    equal(await ended, 0, 'exit status');
  })),

  fetch_polls_with_cursors: () => withPage(node.url, async page => {
    const who = user();
    const poll = (cursor, wait) => page.evaluate(async ([credential, cursor, wait]) => {
      const query = new URLSearchParams({ wait, ...(cursor && { cursor }) });
      const answer = await fetch(`/v1/inbox?${query}`, { headers: { Authorization: `Bearer ${credential}` } });
      return { status: answer.status, ...await answer.json() };
    }, [token(who), cursor, wait]);
    const waiting = poll(undefined, 20);
    const first = await node.publish({ users: [who], data: 1 });
    const one = await waiting;
    equal([one.status, one.notifications.map(entry => entry.id)], [200, [first]]);
    const second = await node.publish({ users: [who], data: 2 });
    const two = await poll(one.cursor, 20);
    equal(two.notifications.map(entry => entry.id), [second]);
    await settled(first, 'delivered');
  }),

  a_reloaded_page_gets_what_is_pending: () => withPage(node.url, async page => {
    const who = user();
    const sent = await node.publish({ users: [who], data: 1 });
    for (let visit = 0; visit < 2; visit += 1) {
      await openWebSocket(page, `/v1/inbox/ws?ack=explicit&ticket=${await node.ticket(who)}`);
      await until(page, ...sawIds([sent]));
      await page.evaluate(() => window.socket.close());
    }
  }),

  another_origin_is_not_let_in: async () => {
    // The token is no cookie, yet without `http.allowed_origins` no other site's page may read an answer.
    const other = await Node.start();
    try {
      await withPage(other.url, async page => {
        const read = await page.evaluate(([url, credential]) => fetch(`${url}/v1/inbox?wait=0`, {
          headers: { Authorization: `Bearer ${credential}` },
        }).then(() => 'read', () => 'refused'), [node.url, token(user())]);
        equal(read, 'refused');
      });
    } finally {
      await other.remove();
    }
  },
}, async name => {
  const page = browser.contexts().flatMap(context => context.pages()).at(-1);
  if (page) await page.screenshot({ path: artifact(`failed-browser-${name}.png`) });
});

async function settled(id, state) {
  const headers = { Authorization: 'Bearer key-of-the-back-end-with-all-scopes' };
  const deadline = Date.now() + SHOWN_MS;
  for (;;) {
    const { counts } = await (await fetch(`${node.url}/v1/notifications/${id}`, { headers })).json();
    if (counts[state] === 1) return;
    if (Date.now() > deadline) throw new Error(`${id} is not ${state}: ${JSON.stringify(counts)}`);
    await new Promise(resolve => setTimeout(resolve, 50));
  }
}

await browser.close();
if (status) console.log(`     the shared node's log ends: ${await node.log()}`);
await node.remove();
process.exit(status);
