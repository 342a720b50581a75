import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatAddress, isLoopback, parseAddress } from './address.ts';

test('addresses are read and written back alike', () => {
  for (const text of ['127.0.0.1:7701', 'host.example:0', '[::1]:65535']) {
    assert.equal(formatAddress(parseAddress(text, '--listen')), text);
  }
});

test('what is no address is refused with the option and the text', () => {
  for (const text of ['', 'host', ':1', 'host:', 'host:65536', '::1:5', '[::1]', 'a:1:2', 'http://h:1']) {
    assert.throws(
      () => parseAddress(text, '--listen'),
      (error: Error) => error.message.startsWith(`--listen: "${text}"`),
    );
  }
});

test('only what is loopback without asking a resolver counts as loopback', () => {
  for (const host of ['localhost', '127.0.0.1', '127.9.9.9', '::1', '0:0:0:0:0:0:0:1']) assert(isLoopback(host), host);
  for (const host of [
    '0.0.0.0',
    '::',
    '10.0.0.1',
    '128.0.0.1',
    '127.example.org',
    '::ffff:10.0.0.1',
    'fe80::1',
    '1::1',
  ]) {
    assert(!isLoopback(host), host);
  }
});
