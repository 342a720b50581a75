import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { PageLedger, UnixListener } from '../ts/index.ts';
import { codeOf, descriptors, HANG_MS, lacking, temporaryFolder, untilClosed } from './support.ts';

const FACE = JSON.stringify(new URL('../ts/index.ts', import.meta.url).href);

/** A worker that opens one of everything, closes nothing, holds the ledger's lock, and is then ended from outside. */
function leaky(folder: string, index: number, ledgerId: number): Worker {
  const source = `
    const { parentPort } = require('node:worker_threads');
    import(${FACE}).then((n) => {
      const uffd = n.Uffd.open({ via: 'syscall', userModeOnly: true });
      uffd.handshake(0);
      uffd.poll(new Float64Array(n.UFFD_EVENT_BATCH * n.UFFD_EVENT_FIELDS), () => {});
      const path = ${JSON.stringify(folder)} + '/' + ${index};
      const listener = n.UnixListener.listen(path, (connection) => connection.onData(() => {}));
      const connection = n.UnixConnection.connect(path);
      connection.onData(() => {});
      const file = n.MemoryFile.createMemfd('leaky', 1 << 20);
      file.store(Buffer.alloc(4096, 1), 0, 4096, 0);
      const memory = n.ProcessMemory.open(process.pid);
      const bits = n.MemoryFile.createMemfd('bits', 4096, { sealable: true });
      const bitmap = n.UserfaultBitmap.adopt(n.duplicateDescriptor(bits.fd), 64);
      const ledger = n.PageLedger.attach(${ledgerId});
      ledger.fault(${index});
      ledger.lockShared();
      globalThis.kept = [uffd, listener, connection, file, memory, bits, bitmap, ledger];
      parentPort.postMessage('open');
    });`;
  return new Worker(source, { eval: true });
}

test(
  'workers that end with everything open close it all, and do not take the main thread with them',
  { timeout: 3 * HANG_MS, skip: lacking('userfaultfd by syscall') },
  async (t) => {
    const folder = temporaryFolder(t);
    const ledger = PageLedger.create(16);
    const before = descriptors();
    const workers = [0, 1, 2].map((index) => leaky(folder, index, ledger.id));
    await Promise.all(workers.map((worker) => once(worker, 'message')));
    assert.equal(ledger.counts().requested, 3, 'they share the ledger');
    assert.ok(descriptors().length > before.length);
    await Promise.all(workers.map((worker) => worker.terminate()));
    await untilClosed(before);
    ledger.lockExclusive();
    ledger.unlockExclusive();
    ledger.close();
  },
);

test(
  'a process ends by itself once everything is closed, and at once by exit() where it is not',
  { timeout: 2 * HANG_MS },
  (t) => {
    const folder = temporaryFolder(t);
    const run = (body: string): number | null =>
      spawnSync(process.execPath, ['--input-type=module', '-e', `import * as n from ${FACE};\n${body}`], {
        timeout: HANG_MS,
      }).status;
    const open = `
    const listener = n.UnixListener.listen(${JSON.stringify(join(folder, 's'))}, () => {});
    const connection = n.UnixConnection.connect(${JSON.stringify(join(folder, 's'))});
    connection.onData(() => {});`;
    assert.equal(run(`${open} connection.close(); listener.close(); process.exitCode = 7;`), 7);
    assert.equal(run(`${open} process.exit(8);`), 8);
  },
);

test('a worker that is ended in the middle of a native call ends alone', { timeout: 3 * HANG_MS }, async () => {
  const source = `
    const { parentPort } = require('node:worker_threads');
    import(${FACE}).then((n) => {
      const ledger = n.PageLedger.create(64);
      const file = n.MemoryFile.createMemfd('busy', 4096);
      const page = Buffer.alloc(4096);
      parentPort.postMessage('busy');
      for (;;) {
        ledger.fault(1);
        ledger.counts();
        file.write(page, 0, 4096, 0);
        file.dataRuns(0, 4096);
        try { n.MemoryFile.open('/nonexistent', { write: false }); } catch {}
        try { ledger.fault(64); } catch {}
      }
    });`;
  for (let i = 0; i < 20; i++) {
    const worker = new Worker(source, { eval: true });
    await once(worker, 'message');
    await worker.terminate();
  }
});

/** What a worker does until it is ended; each line lets go of all that it opens. */
const OPENING = {
  'a memfd': `n.MemoryFile.createMemfd('short', 4096).close();`,
  'a duplicate': `(kept ??= n.MemoryFile.createMemfd('kept', 4096)).duplicate().close();`,
  'a file': `n.MemoryFile.open(process.execPath, { write: false }).close();`,
  'a process': `n.ProcessMemory.open(process.pid).close();`,
  'a connection': `n.UnixConnection.connect(path).close();`,
  'a listener': `n.UnixListener.listen(path + index, () => {}).close();`,
  'both ends of a connection': `
    const listener = n.UnixListener.listen(path + index, (connection) => connection.close());
    const connection = n.UnixConnection.connect(path + index);
    await new Promise(setImmediate);
    connection.close();
    listener.close();`,
  'a ledger': `n.PageLedger.create(64).close();`,
};

for (const [what, body] of Object.entries(OPENING)) {
  // Whatever call it is in the middle of: what was opened may not have reached the object that would close it.
  test(`a worker that is ended while it opens ${what} leaves nothing open`, { timeout: 3 * HANG_MS }, async (t) => {
    const path = join(temporaryFolder(t), 's');
    const listener = UnixListener.listen(path, (connection) => connection.close());
    t.after(() => listener.close());
    const before = descriptors();
    const firstLedger = PageLedger.create(1);
    for (let index = 0; index < 10; index++) {
      const source = `
        const { parentPort } = require('node:worker_threads');
        const path = ${JSON.stringify(path)}, index = ${index};
        let kept;
        import(${FACE}).then(async (n) => {
          parentPort.postMessage('busy');
          for (;;) {
            try { ${body} } catch (error) { if (error.code !== 'EAGAIN') throw error; }
          }
        });`;
      const worker = new Worker(source, { eval: true });
      await once(worker, 'message');
      await worker.terminate();
    }
    await untilClosed(before);
    const lastLedger = PageLedger.create(1);
    for (let id = firstLedger.id + 1; id < lastLedger.id; id++) {
      assert.equal(
        codeOf(() => PageLedger.attach(id).close()),
        'ENOENT',
        `ledger ${id} is nobody's`,
      );
    }
    firstLedger.close();
    lastLedger.close();
  });
}

test('an addon that is not built is an error that says what to run', () => {
  const script = `import(${FACE}).catch((error) => { console.log(error.message); });`;
  const env = { ...process.env, PAGEWAKE_NATIVE_ADDON: '/nonexistent/addon.node' };
  const { stdout } = spawnSync(process.execPath, ['-e', script], { encoding: 'utf8', env });
  assert.match(stdout, /^The native core is not built \(\/nonexistent\/addon.node is missing\): run `npm run setup`/);
});

test('an error in a callback is an uncaught exception, not a silence', { timeout: HANG_MS }, (t) => {
  const path = JSON.stringify(join(temporaryFolder(t), 's'));
  const script = `import * as n from ${FACE};
    process.on('uncaughtException', (error) => { console.log('caught', error.message); process.exit(3); });
    n.UnixListener.listen(${path}, () => { throw new Error('in a callback'); });
    n.UnixConnection.connect(${path});`;
  const { stdout, status } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    encoding: 'utf8',
    timeout: HANG_MS,
  });
  assert.equal(stdout, 'caught in a callback\n');
  assert.equal(status, 3);
});

test('native classes cannot be called with what is not theirs', () => {
  assert.equal(
    codeOf(() => PageLedger.attach(123_456)),
    'ENOENT',
  );
  assert.throws(() => PageLedger.attach(-1), RangeError);
  const method = Object.getPrototypeOf(PageLedger.create(1)) as { state: (page: number) => number };
  assert.throws(() => method.state.call({}, 0), TypeError);
});
