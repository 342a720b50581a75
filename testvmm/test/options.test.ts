import assert from 'node:assert/strict';
import test from 'node:test';

import { runTestvmm } from './vmm.ts';

const refused: readonly (readonly [readonly string[], RegExp])[] = [
  [[], /a role is needed/],
  [['sauce'], /one of source, destination, snapshot, not "sauce"/],
  [['source'], /--control PATH is required/],
  [['snapshot'], /--out FILE is required/],
  [['source', '--ram'], /--ram needs a value/],
  [['source', '--ram', '1T'], /a size is a number with K, M or G, not "1T"/],
  [['source', '--ram', '-1'], /--ram/],
  [['source', '--vcpus', 'two'], /a whole number is needed, not "two"/],
  [['source', '--control', 'x', '--vcpus', '0'], /--vcpus: 1 to 62, not 0/],
  [['source', '--control', 'x', '--regions', '9'], /--regions: 1 to 8, not 9/],
  [['source', '--control', 'x', '--ram', '1M', '--regions', '3'], /not a multiple/],
  [['source', '--control', 'x', '--ram', '64M'], /--ram: too small/],
  [['source', '--memory', 'hugetlb'], /one of memfd, anon, guest_memfd, not "hugetlb"/],
  [['source', '--order', 'backwards'], /one of random, sequential, not "backwards"/],
  [['source', '--frob'], /unknown option --frob/],
  [['source', '--balloon', '3'], /--balloon does not apply to source/],
  [['destination', '--ram', '1G'], /--ram does not apply to destination/],
  [['destination', '--control', 'x', '--register', 'minor'], /one of missing, missing,minor/],
  [['destination', '--control', 'x', '--handshake', 'firecracker', '--stage2', 'exit'], /has no messages/],
  [['destination', '--control', 'x', '--handshake', 'secret-free'], /add --register missing,minor and --stage2/],
  [['destination', '--control', 'x', '--bitmap'], /--bitmap: only with --stage2 exit/],
  [['destination', '--control', 'x', '--memory', 'anon', '--stage2', 'userfault'], /needs a memory file/],
  [['destination', '--control', 'x', '--handshake', 'firecracker', '--form', 'framed'], /of the other Firecracker/],
  [['source', '--control', 'x', '--ring', '1'], /one of 0, 3, not "1"/],
  [['destination', '--control', 'x', '--form', 'newline'], /--form: only with --handshake firecracker/],
  [['destination', '--control', 'x', '--form', 'smoke'], /--form: one of both, page-size, .*, half, not "smoke"/],
  [['destination', '--control', 'x', '--memory', 'anon', '--register', 'missing,minor'], /no minor faults/],
  [['destination', '--control', 'x', '--memory', 'guest_memfd', '--balloon', '1'], /cannot be trapped/],
  [['source', '--control', 'x', '--memory', 'anon', '--page-size', '2097152'], /only with --memory memfd/],
];

for (const [args, message] of refused) {
  test(`refused with exit 2, one line, no guest: testvmm ${args.join(' ')}`, { timeout: 10_000 }, async () => {
    const { code, stdout, stderr } = await runTestvmm(args);
    assert.equal(code, 2);
    assert.equal(stdout, '');
    assert.match(stderr, message);
    assert.equal(stderr.trim().split('\n').length, 1);
  });
}

test('--help describes every option and command', { timeout: 10_000 }, async () => {
  const { code, stdout } = await runTestvmm(['--help']);
  assert.equal(code, 0);
  for (const word of ['--memory', '--register', '--stage2', '--balloon', '--pattern', 'load PATH', 'verify', 'Exit:'])
    assert.ok(stdout.includes(word), word);
});
