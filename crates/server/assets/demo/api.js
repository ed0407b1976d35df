// Requests to the server. A refusal (RFC 9457) becomes an error whose message is its `detail`.

/** What the server refused. `status` is 0 where no answer came at all. */
export class Problem extends Error {
  constructor(status, { detail, title, code, pointer } = {}, retryAfter = NaN) {
    super(detail || title || `The server answered ${status}.`);
    Object.assign(this, { status, code, pointer, retryMs: retryAfter > 0 ? retryAfter * 1000 : undefined });
  }

  /** Whether the same request may succeed later. */
  get isPassing() {
    return this.status === 0 || this.status === 408 || this.status === 429 || this.status >= 500;
  }
}

/** Sends, and returns the answer, or throws a Problem. What a signal aborted is thrown as it is. */
export async function request({ method = 'GET', path, token, type = 'application/json', body, signal }) {
  const headers = { Authorization: `Bearer ${token}` };
  if (body !== undefined) headers['Content-Type'] = type;
  let answer;
  try {
    // no-store also keeps the browser from queueing two devices' equal polls one behind the other.
    answer = await fetch(path, { method, headers, body, signal, cache: 'no-store' });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem(0, { detail: 'The server cannot be reached.' });
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => null);
  throw new Problem(answer.status, told ?? {}, Number(answer.headers.get('Retry-After')));
}

/** The same, with the answer's JSON. */
export const requestJson = async wanted => parse(await (await request(wanted)).text());

/** JSON whose numbers stay as they were written: plain JSON.parse would round those beyond 2^53. */
export function parse(text) {
  return JSON.parse(text, (key, value, context) =>
    typeof value === 'number' && context && JSON.rawJSON && String(value) !== context.source
      ? JSON.rawJSON(context.source) : value);
}

/** `path?a=1&b=2`, without what is undefined or empty. */
export function withQuery(path, fields) {
  const query = new URLSearchParams(Object.entries(fields).filter(([, value]) => value !== undefined && value !== ''));
  return query.size ? `${path}?${query}` : path;
}
