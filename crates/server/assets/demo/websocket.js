// Receives by WebSocket. Under `ack=auto` the browser's pong to the server's ping settles what came before it.

import { Problem, parse, request, withQuery } from './api.js';

const PATH = '/v1/inbox/ws';
/** Close codes from here on mean: do not come back. */
const FINAL = 4500;

/** Runs one connection; resolves with how it ended. */
export async function websocket(link) {
  // A browser's WebSocket can send no Authorization header; a ticket in the address starts one session.
  const answer = await request({ method: 'POST', path: '/v1/tickets', token: link.token, signal: link.signal });
  const { ticket } = await answer.json();
  link.signal.throwIfAborted();
  link.wire('→', `GET ${withQuery(PATH, link.query)}`);
  const url = new URL(withQuery(PATH, { ...link.query, ticket }), location.href);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  return talk(link, new WebSocket(url, 'postrider.v1'));
}

function talk(link, socket) {
  link.signal.addEventListener('abort', () => socket.close(1000));
  const answers = answered(frame => {
    const text = JSON.stringify(frame);
    link.wire('→', text);
    socket.send(text);
  });
  link.send = answers.send;
  return new Promise(resolve => {
    socket.onmessage = ({ data }) => {
      link.wire('←', data);
      const frame = parse(data);
      if (frame.type === 'settled') answers.take(frame);
      else link.frame(frame);
      if (frame.type === 'hello') link.opened();
    };
    socket.onclose = ({ code, reason }) => {
      link.wire('←', `close ${code} ${reason}`);
      answers.close();
      resolve(outcome(code, reason));
    };
  });
}

/** Gives each frame a `ref`, by which the server's `settled` names it: only then is it on the disk, and done. */
function answered(send) {
  const waiting = new Map();
  let ref = 0;
  return {
    send: frame => new Promise((resolve, reject) => {
      ref += 1;
      waiting.set(ref, { resolve, reject });
      send({ ...frame, ref });
    }),
    take({ ref }) {
      waiting.get(ref)?.resolve();
      waiting.delete(ref);
    },
    close() {
      const error = new Problem(0, { detail: 'The connection ended before the server had answered.' });
      waiting.forEach(({ reject }) => reject(error));
      waiting.clear();
    },
  };
}

/** The close reason is `{"code":"…","retry_ms":n}`; 1006, which no server sends, has none. */
function outcome(code, reason) {
  let told = {};
  try { told = JSON.parse(reason); } catch { /* No reason was given. */ }
  const why = told.code ? `The server closed the session: ${told.code}.` : 'The connection broke.';
  if (code >= FINAL && code < 5000) return { stop: why, status: told.code === 'token_invalid' ? 401 : undefined };
  return { retryMs: told.retry_ms, why };
}
