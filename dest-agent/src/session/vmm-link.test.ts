import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { MemoryFile, UnixConnection } from '@pagewake/native';
import { RawPeer } from '../../test/agent.ts';
import { temporaryDir } from '../../test/toucher.ts';
import { BUDGET, until } from '../../test/wait.ts';
import { VmmLink, type ReceivedOffer, type VmmEvents } from './vmm-link.ts';

const region = { base_host_virt_addr: 2 ** 40, size: 4096, offset: 0, page_size: 4096 };
const HANDSHAKE = `${JSON.stringify({ protocol: 'pagewake/1', vm: 'demo', regions: [region], fds: ['memfd'], registered: [] })}\n`;

interface Link {
  readonly link: VmmLink;
  readonly path: string;
  readonly offers: ReceivedOffer[];
  readonly messages: unknown[];
  readonly bad: string[];
  readonly closed: number[];
  readonly fd: number;
}

function listen(t: TestContext, handshakeTimeoutMs?: number): Link {
  const offers: ReceivedOffer[] = [];
  const messages: unknown[] = [];
  const bad: string[] = [];
  const closed: number[] = [];
  const events: VmmEvents = {
    onOffer: (received) => offers.push(received),
    onMessage: (message) => messages.push(message),
    onBadPeer: (error) => bad.push(error.message),
    onClose: () => closed.push(1),
  };
  const link = new VmmLink(events, handshakeTimeoutMs);
  const path = join(temporaryDir(t), 'vm.sock');
  link.listen(path);
  const file = MemoryFile.createMemfd('test', 4096);
  t.after(() => {
    link.close();
    file.close();
  });
  return { link, path, offers, messages, bad, closed, fd: file.fd };
}

test(
  'a peer that says nothing, or half of what it should, is refused after a while, and the next one may come',
  BUDGET,
  async (t) => {
    const { path, offers, bad, fd } = listen(t, 50);
    for (const text of ['', '{"protocol":']) {
      const peer = new RawPeer(t, path);
      if (text !== '') peer.send(text);
      const told = await peer.message();
      assert.equal(told['type'], 'failed');
      assert.match(String(told['message']), /no whole handshake within 0\.05 s/);
      await peer.closed();
    }
    assert.equal(bad.length, 2);
    new RawPeer(t, path).send(HANDSHAKE, [fd]);
    await until('the handshake', () => offers.length === 1);
  },
);

test('once the handshake is whole its clock has stopped', BUDGET, async (t) => {
  const { path, offers, messages, bad, fd } = listen(t, 30);
  const peer = new RawPeer(t, path);
  peer.send(HANDSHAKE, [fd]);
  await until('the handshake', () => offers.length === 1);
  await new Promise((resolve) => setTimeout(resolve, 60));
  peer.send('{"type":"removed","offset":0,"len":4096}\n');
  await until('a message', () => messages.length === 1);
  assert.deepEqual(bad, []);
});

test('a character that is cut in two is one character, in the handshake and after it', BUDGET, async (t) => {
  const { path, offers, bad, fd } = listen(t);
  const peer = new RawPeer(t, path);
  const text = Buffer.from(HANDSHAKE.replace('"demo"', '"gäste-€"'));
  const cuts = [text.indexOf('ä') + 1, text.indexOf('€') + 1, text.indexOf('€') + 2];
  let at = 0;
  for (const cut of [...cuts, text.length]) {
    peer.send(text.subarray(at, cut), at === 0 ? [fd] : []);
    at = cut;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  await until('the handshake', () => offers.length + bad.length === 1);
  assert.equal(offers[0]?.offer.vmId, 'gäste-€');
});

test('a VMM that comes while another is there is told to try again', BUDGET, async (t) => {
  const { path, offers, fd } = listen(t);
  new RawPeer(t, path).send(HANDSHAKE, [fd]);
  await until('the handshake', () => offers.length === 1);
  const told = await new RawPeer(t, path).message();
  assert.deepEqual([told['type'], told['reason'], told['again']], ['failed', 'BAD_HANDSHAKE', true]);
  assert.match(String(told['message']), /another VMM is on this socket already/);
});

test('messages in the same piece as the handshake, and cut anywhere, are all heard', BUDGET, async (t) => {
  const { path, messages, fd } = listen(t);
  const peer = new RawPeer(t, path);
  const message = '{"type":"stage2_fault","id":1,"vcpu":0,"offset":0}';
  peer.send(`${HANDSHAKE}${message}\n${message.slice(0, 20)}`, [fd]);
  await until('the first', () => messages.length === 1);
  peer.send(`${message.slice(20)}\n\n${message}\n`);
  await until('all three', () => messages.length === 3);
});

test("Firecracker's array is whole at its own end, not at a bracket or a line before it", BUDGET, async (t) => {
  for (const text of [`[${JSON.stringify({ more: [1, []], ...region })}]`, JSON.stringify([region], null, 2)]) {
    const { path, offers, bad, fd } = listen(t);
    const peer = new RawPeer(t, path);
    const cut = text.search(/[\]\n]/) + 1;
    peer.send(text.slice(0, cut), [fd]);
    await new Promise((resolve) => setTimeout(resolve, 20));
    peer.send(text.slice(cut));
    await until('the handshake', () => offers.length + bad.length === 1);
    assert.deepEqual(bad, []);
    assert.equal(offers[0]?.offer.dialect, 'firecracker');
  }
});

const SECRET_FREE = JSON.stringify([{ ...region, gpa_start: 0, is_guest_memfd: false }]);

test(
  'a secret-free Firecracker is heard of with its word, wherever that is cut, and its messages follow',
  BUDGET,
  async (t) => {
    const fault = '{"vcpu":0,"offset":0,"flags":0,"token":null}';
    const text = `${SECRET_FREE}no_exitless_apf${fault}`;
    for (const cuts of [
      [],
      [SECRET_FREE.length],
      [20, SECRET_FREE.length + 4],
      [SECRET_FREE.length + 15, text.length - 1],
    ]) {
      const link = listen(t);
      const peer = new RawPeer(t, link.path);
      let at = 0;
      for (const cut of [...cuts, text.length]) {
        assert.equal(link.offers.length, at > SECRET_FREE.length + 14 ? 1 : 0);
        peer.send(text.slice(at, cut), at === 0 ? [link.fd, link.fd, link.fd] : []);
        at = cut;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      await until('its message', () => link.messages.length + link.bad.length === 1);
      assert.deepEqual(link.bad, []);
      assert.deepEqual(link.messages, [{ type: 'stage2_faults', faults: [{ id: 0, vcpu: 0, offset: 0, flags: 0 }] }]);
    }
  },
);

test(
  'a secret-free Firecracker that does not say its word is refused after a while; its descriptors are closed',
  BUDGET,
  async (t) => {
    const { path, offers, bad, fd } = listen(t, 50);
    const open = (): number => readdirSync('/proc/self/fd').length;
    const before = open();
    for (const word of ['', 'no_exit']) {
      const peer = new RawPeer(t, path);
      peer.send(SECRET_FREE + word, [fd, fd, fd]);
      assert.match(String((await peer.message())['message']), /no whole handshake within 0\.05 s/);
      await peer.closed();
      peer.close();
    }
    await until('descriptors are back to what they were', () => open() <= before);
    assert.equal(bad.length, 2);
    new RawPeer(t, path).send(HANDSHAKE, [fd]);
    await until('the handshake', () => offers.length === 1);
  },
);

test('who the peer is comes from the kernel', BUDGET, async (t) => {
  const { path, offers, fd } = listen(t);
  new RawPeer(t, path).send(HANDSHAKE, [fd]);
  await until('the handshake', () => offers.length === 1);
  assert.equal(offers[0]?.pid, process.pid);
});

test(
  'a peer whose last words and whose end come together is heard and then gone, however much it left unread',
  BUDGET,
  async (t) => {
    const { link, path, offers, messages, closed, fd } = listen(t);
    const peer = new RawPeer(t, path);
    peer.send(HANDSHAKE, [fd]);
    await until('the handshake', () => offers.length === 1);
    // More than one read, and answers that the peer will never read: the kernel reports that as an error of the socket.
    for (let i = 0; i < 50; i++) link.send({ type: 'ready' });
    peer.send('{"type":"removed","offset":0,"len":4096}\n'.repeat(2500));
    peer.close();
    await until('its end', () => closed.length === 1);
    assert(messages.length > 0);
    link.send({ type: 'done' });
  },
);

test('a VMM that never reads what it is told is a bad peer, and no error of the whole agent', BUDGET, async (t) => {
  const { link, path, offers, bad, fd } = listen(t);
  const deaf = UnixConnection.connect(path);
  t.after(() => deaf.close());
  deaf.send(Buffer.from(HANDSHAKE), [fd]);
  await until('the handshake', () => offers.length === 1);
  const message = 'x'.repeat(64 * 1024);
  for (let sent = 0; bad.length === 0 && sent < 1024; sent++)
    link.send({ type: 'failed', reason: 'INTERNAL', message });
  assert.match(bad[0] ?? '', /does not read its channel/);
  // Nor is it told anything more.
  link.send({ type: 'done' });
  assert.equal(bad.length, 1);
});
