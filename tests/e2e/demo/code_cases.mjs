// What the page shows as code does what the page did; and its modules are a client.

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { equal, holds } from '../lib/cases.mjs';

const shell = promisify(execFile);

export const code = ({ node, demo, page }) => ({
  what_was_done_can_be_run_from_a_shell: async () => {
    const sent = await demo.send('ada', 'By “curl”, it\'s said');
    await demo.inState('ada-laptop', sent, 'new');
    const { stdout } = await shell('bash', ['-c', await demo.copied()]);
    await page.locator('#console-copy').filter({ hasText: 'Copied' }).waitFor();
    await demo.inState('ada-laptop', JSON.parse(stdout).id, 'new');
    await demo.transport('bob-tablet', 'long_poll');
    const poll = JSON.parse((await shell('bash', ['-c', (await demo.copied()).replace('wait=25', 'wait=0')])).stdout);
    holds(Array.isArray(poll.notifications) && poll.cursor, 'a poll');
  },

  many_in_one_request_can_be_run_from_a_shell: async () => {
    const before = await demo.unread('bob-tablet');
    await demo.pick('bob');
    await page.locator('#send-many').click();
    await demo.unreadReaches('bob-tablet', before + 100);
    await shell('bash', ['-c', await demo.copied()]);
    await demo.unreadReaches('bob-tablet', before + 103);
  },

  what_is_typed_is_not_taken_for_a_variable: async () => {
    const sent = await demo.send('bob', 'Costs $KEY', { data: '"$URL and ${BOB}"' });
    await demo.inState('bob-tablet', sent, 'new');
    const { stdout } = await shell('bash', ['-c', await demo.copied()]);
    await demo.inState('bob-tablet', JSON.parse(stdout).id, 'new');
    const shown = await demo.item('bob-tablet', JSON.parse(stdout).id).innerText();
    holds(shown.includes('Costs $KEY') && shown.includes('$URL and ${BOB}'), shown);
  },

  what_was_done_can_be_run_as_javascript: async () => {
    const before = await demo.unread('ada-laptop');
    await demo.send('ada', 'By JavaScript');
    await demo.unreadReaches('ada-laptop', before + 1);
    await page.locator('#console-toggle').click();
    await page.locator('.tongues .pick').filter({ hasText: 'JavaScript' }).click();
    await shell('node', ['--input-type=module', '-e', await demo.copied()]);
    await demo.unreadReaches('ada-laptop', before + 2);
    await demo.everyDress(name => demo.screenshot(`code-${name}`, false));
    await page.locator('.tongues .pick').filter({ hasText: 'curl' }).click();
    await page.locator('#console-toggle').click();
  },

  its_modules_do_what_a_client_needs: async () => {
    const found = await page.evaluate(async () => {
      const { backOff } = await import('/demo/session.js');
      const { blocks } = await import('/demo/sse.js');
      const { Inbox } = await import('/demo/inbox.js');
      const told = [];
      const feed = blocks(({ event, data, id, retry }) => told.push([event, data, id ?? null, retry ?? null]));
      for (const piece of ['retry: 5\r', '\n\r\nevent: notif', 'ication\ndata: {"a"\ndata::1}\n', '\n: keep-alive\n\nid: c-1\n', '\n']) feed(piece);
      const inbox = new Inbox();
      inbox.mark('early', 'read', 'read elsewhere');
      const [early, fresh, again] = ['early', 'a', 'a'].map(id => inbox.arrive({ id }));
      return {
        told: told.filter(([event, data, id, retry]) => data || id || retry),
        least: [0, 1, 2].map(n => backOff(n, 0)), most: backOff(50, 1),
        early: early.item.state, isNew: [fresh.isNew, again.isNew], copies: again.item.copies, unread: inbox.unread, received: inbox.received,
      };
    });
    equal(found, {
      told: [['message', '', null, 5], ['notification', '{"a"\n:1}', null, null], ['message', '', 'c-1', null]],
      least: [250, 500, 1000], most: 10_000, early: 'read', isNew: [true, false], copies: 2, unread: 1, received: 2,
    });
  },

  the_nodes_own_page_may_use_every_transport: async () => {
    // From the page that the node serves, under its content security policy.
    const opened = await page.evaluate(async credential => {
      const headers = { Authorization: `Bearer ${credential}` };
      const ticket = async () => (await (await fetch('/v1/tickets', { method: 'POST', headers })).json()).ticket;
      const source = new EventSource(`/v1/inbox/stream?ack=none&ticket=${await ticket()}`);
      await new Promise((resolve, reject) => { source.onopen = resolve; source.onerror = reject; });
      source.close();
      const socket = new WebSocket(`ws://${location.host}/v1/inbox/ws?ack=none&ticket=${await ticket()}`, 'postrider.v1');
      await new Promise((resolve, reject) => { socket.onmessage = resolve; socket.onerror = reject; });
      socket.close();
      return socket.protocol;
    }, node.demo.users.ada);
    equal(opened, 'postrider.v1');
  },

  the_links_lead_somewhere: async () => {
    const links = await page.locator('a[href^="/"]').evaluateAll(nodes => nodes.map(node => node.getAttribute('href')));
    for (const link of new Set(links)) equal((await fetch(node.url + link)).status, 200, link);
  },

  the_keys_are_for_who_came_by_the_address: async () => {
    const { stdout } = await shell('curl', ['-sS', '-o', '/dev/null', '-w', '%{http_code}', '-H', 'Host: evil.example', `${node.url}/demo/keys.json`]);
    equal(stdout, '403');
  },
});
