// Writes what the page did as code: for curl in a shell, and for JavaScript. Each comes twice: as it is shown, with
// variables for the demo's address, key and tokens; and as it is copied, with these put in, so that it runs at once.

import { keys } from './keys.js';

const shellQuoted = text => `'${text.replaceAll("'", `'\\''`)}'`;
/** `who` is `key` or a user. */
const variable = who => who.toUpperCase();

/** How address and credentials are written. */
const SHELL = { url: '$URL', ws: 'ws${URL#http}', bearer: who => `$${variable(who)}` };
const SCRIPT = { url: '${URL}', ws: "${URL.replace(/^http/, 'ws')}", bearer: who => `\${${variable(who)}}` };
const FILLED_IN = {
  url: location.origin,
  ws: location.origin.replace(/^http/, 'ws'),
  bearer: who => (who === 'key' ? keys.api_key : keys.users[who]),
};

const inBoth = (shell, script) => ({
  curl: { shown: shell(SHELL), copied: shell(FILLED_IN) },
  js: { shown: script(SCRIPT), copied: script(FILLED_IN) },
});

/** One request: `{ method, path, who, body, type }`, the body as text. `note` stands before it as a comment. */
export function requestCode(wanted, note) {
  const [inShell, inScript] = note ? [`# ${note}\n`, `// ${note}\n`] : ['', ''];
  return inBoth(names => inShell + curl(names, wanted), names => inScript + fetching(names, wanted));
}

function curl({ url, bearer }, { method = 'GET', path, who, body, type = 'application/json' }, flags = '-sS') {
  const isUsual = method === (body === undefined ? 'GET' : 'POST');
  const lines = [`curl ${flags}${isUsual ? '' : ` -X ${method}`} "${url}${path}"`, `-H "Authorization: Bearer ${bearer(who)}"`];
  if (body !== undefined) lines.push(`-H 'Content-Type: ${type}'`, `-d ${shellQuoted(body)}`);
  return lines.join(' \\\n  ');
}

function fetching({ url, bearer }, { method = 'GET', path, who, body, type = 'application/json' }) {
  const headers = [`Authorization: \`Bearer ${bearer(who)}\``];
  if (body !== undefined) headers.push(`'Content-Type': '${type}'`);
  const fields = [
    ...(method === 'GET' ? [] : [`method: '${method}'`]),
    `headers: { ${headers.join(', ')} }`,
    ...(body === undefined ? [] : [`body: ${JSON.stringify(body)}`]),
  ];
  const answer = type === 'application/json' ? 'json' : 'text';
  return `const answer = await fetch(\`${url}${path}\`, {\n  ${fields.join(',\n  ')},\n});\nconsole.log(await answer.${answer}());`;
}

/** How a device receives, from its cursor on. */
export function receivingCode(transport, who, cursor) {
  const [query, more] = cursor ? [`?cursor=${cursor}`, `&cursor=${cursor}`] : ['', ''];
  return {
    websocket: () => inBoth(names => webSocketShell(names, who, more), names => ticketScript(names, who) + webSocketScript(names, more)),
    sse: () => inBoth(names => curl(names, { path: `/v1/inbox/stream${query}`, who }, '-sSN'), names => ticketScript(names, who) + streamScript(names, more)),
    long_poll: () => inBoth(names => curl(names, { path: `/v1/inbox?wait=25${more}`, who }), names => pollScript(names, who, cursor)),
  }[transport]();
}

const webSocketShell = ({ url, ws, bearer }, who, more) => `TICKET=$(curl -sS -X POST "${url}/v1/tickets" -H "Authorization: Bearer ${bearer(who)}" | jq -r .ticket)
websocat --protocol postrider.v1 "${ws}/v1/inbox/ws?ticket=$TICKET${more}"`;

const ticketScript = ({ url, bearer }, who) => `const headers = { Authorization: \`Bearer ${bearer(who)}\` };
const { ticket } = await (await fetch(\`${url}/v1/tickets\`, { method: 'POST', headers })).json();
`;

const webSocketScript = ({ ws }, more) => `const socket = new WebSocket(\`${ws}/v1/inbox/ws?ticket=\${ticket}${more}\`, 'postrider.v1');
socket.onmessage = ({ data }) => {
  const frame = JSON.parse(data);
  if (frame.type === 'notification') console.log(frame);
  if (frame.type === 'cursor') console.log('resume with', frame.cursor);
};`;

const streamScript = ({ url }, more) => `const source = new EventSource(\`${url}/v1/inbox/stream?ticket=\${ticket}${more}\`);
source.addEventListener('notification', event => console.log(JSON.parse(event.data)));
source.addEventListener('read', event => console.log('read elsewhere', JSON.parse(event.data).ids));`;

const pollScript = ({ url, bearer }, who, cursor) => `let cursor = ${cursor ? `'${cursor}'` : 'null'};
for (;;) {
  const query = new URLSearchParams({ wait: 25, ...(cursor && { cursor }) });
  const headers = { Authorization: \`Bearer ${bearer(who)}\` };
  const page = await (await fetch(\`${url}/v1/inbox?\${query}\`, { headers })).json();
  console.log(page.notifications);
  cursor = page.cursor;   // the next poll settles what came
}`;
