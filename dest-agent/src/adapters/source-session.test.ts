import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { PagewakeError } from '@pagewake/agent-kit';
import { GuestLayout } from '@pagewake/core';
import { ErrorReason } from '@pagewake/proto';
import { failure, GENERATION } from '../../test/agent.ts';
import { startFakeSource, type FakeSource, type SourceScript } from '../../test/fake-source.ts';
import { BUDGET } from '../../test/wait.ts';
import { SourceSession } from './source-session.ts';

const PAGES = 64;
const layout = new GuestLayout([
  { address: 2 ** 40, sizeBytes: PAGES * 4096, offset: 0, fileOffset: 0, pageSizeBytes: 4096 },
]);

interface Opened {
  readonly source: FakeSource;
  readonly session: SourceSession;
  readonly zeros: [first: number, count: number][];
  readonly open: () => Promise<Uint8Array>;
}

async function connect(t: TestContext, script: Partial<SourceScript>): Promise<Opened> {
  const source = await startFakeSource(t, { pages: PAGES, ...script });
  const identity = { vmId: 'demo', generation: GENERATION, token: Buffer.alloc(32, 1), destinationId: 'me' };
  const session = new SourceSession(source.address, {}, identity);
  t.after(() => session.close());
  const zeros: [number, number][] = [];
  const open = async (): Promise<Uint8Array> => {
    const opening = await session.open(layout, (first, count) => zeros.push([first, count]), true);
    await opening.final;
    return opening.session;
  };
  return { source, session, zeros, open };
}

/** What a source says at Open, and the reason that it gets for it. */
const LIES: readonly (readonly [law: string, script: Partial<SourceScript>, reason: string, message: RegExp])[] = [
  [
    'more pages than the VMM has',
    { accepted: { regions: [{ pageSizeBytes: 4096, pageCount: 65 }] } },
    'GEOMETRY_MISMATCH',
    /region 0: 65 pages .* 64/,
  ],
  ['fewer pages', { accepted: { regions: [{ pageSizeBytes: 4096, pageCount: 63 }] } }, 'GEOMETRY_MISMATCH', /63 pages/],
  [
    'another page size',
    { accepted: { regions: [{ pageSizeBytes: 2 ** 21, pageCount: 64 }] } },
    'GEOMETRY_MISMATCH',
    /2097152/,
  ],
  ['no regions', { accepted: { regions: [] } }, 'GEOMETRY_MISMATCH', /0 regions there, 1 here/],
  [
    'a region more',
    {
      accepted: {
        regions: [
          { pageSizeBytes: 4096, pageCount: 64 },
          { pageSizeBytes: 4096, pageCount: 1 },
        ],
      },
    },
    'GEOMETRY_MISMATCH',
    /2 regions there/,
  ],
  [
    'zeros beyond the region',
    { zeroRuns: [{ region: 0, firstPages: [60], pageCounts: [5] }] },
    'GEOMETRY_MISMATCH',
    /pages 60 to 65/,
  ],
  [
    'zeros far beyond',
    { zeroRuns: [{ region: 0, firstPages: [0xffff_ffff], pageCounts: [0xffff_ffff] }] },
    'GEOMETRY_MISMATCH',
    /pages 4294967295/,
  ],
  [
    'zeros of no region',
    { zeroRuns: [{ region: 3, firstPages: [0], pageCounts: [1] }] },
    'MALFORMED_FRAME',
    /region 3/,
  ],
  [
    'zero runs that overlap',
    { zeroRuns: [{ region: 0, firstPages: [0, 3], pageCounts: [4, 4] }] },
    'GEOMETRY_MISMATCH',
    /pages 3 to 7.*ascend/,
  ],
  [
    'zero runs that descend',
    { zeroRuns: [{ region: 0, firstPages: [10, 2], pageCounts: [1, 1] }] },
    'GEOMETRY_MISMATCH',
    /pages 2 to 3.*ascend/,
  ],
  [
    'zero runs that descend from one message to the next',
    {
      zeroRuns: [
        { region: 0, firstPages: [10], pageCounts: [1] },
        { region: 0, firstPages: [2], pageCounts: [1] },
      ],
    },
    'GEOMETRY_MISMATCH',
    /pages 2 to 3/,
  ],
  [
    'a zero run of nothing',
    { zeroRuns: [{ region: 0, firstPages: [10], pageCounts: [0] }] },
    'GEOMETRY_MISMATCH',
    /pages 10 to 10/,
  ],
  [
    'lists that are not parallel',
    { zeroRuns: [{ region: 0, firstPages: [1, 2], pageCounts: [1] }] },
    'MALFORMED_FRAME',
    /do not make sense/,
  ],
  ['too few data pages', { accepted: { dataPages: 3n } }, 'GEOMETRY_MISMATCH', /3 pages of data; .* there are 64/],
  ['too many data pages', { accepted: { dataPages: 2n ** 63n } }, 'GEOMETRY_MISMATCH', /pages of data/],
  ['another generation', { accepted: { generation: 2 } }, 'STALE_GENERATION', /generation 2, not 3/],
  ['another version', { accepted: { protocolVersion: 9 } }, 'UNSUPPORTED_VERSION', /version 9/],
  ['no version', { accepted: { protocolVersion: 0 } }, 'UNSUPPORTED_VERSION', /version 0/],
  ['nothing at all', { silent: true }, 'MALFORMED_FRAME', /accepted nothing/],
  [
    'a refusal with a reason of its own',
    { onOpen: () => Promise.reject(new PagewakeError(ErrorReason.BAD_TOKEN, 'that token is not for this VM')) },
    'BAD_TOKEN',
    /that token is not for this VM/,
  ],
];

for (const [law, script, reason, message] of LIES)
  test(`at Open, ${law}: ${reason}`, BUDGET, async (t) => {
    const { open } = await connect(t, script);
    const found = await failure(open());
    assert.equal(found.reason, reason, found.message);
    assert.match(found.message, message);
  });

test('an honest Open gives the session, and every zero run in ledger pages; runs may touch', BUDGET, async (t) => {
  const { open, zeros, source } = await connect(t, {
    zeroRuns: [
      { region: 0, firstPages: [0, 4], pageCounts: [4, 1] },
      { region: 0, firstPages: [63], pageCounts: [1] },
    ],
  });
  assert.equal(Buffer.from(await open()).toString(), 'session 1');
  assert.deepEqual(zeros, [
    [0, 4],
    [4, 1],
    [63, 1],
  ]);
  const [request] = source.opens;
  assert.deepEqual(
    [request?.vmId, request?.generation, request?.destinationId, request?.protocolVersion],
    ['demo', 3, 'me', 1],
  );
});

test(
  'a source that says nothing of Paused stood still already: it is final when its answer ends',
  BUDGET,
  async (t) => {
    const { open, zeros } = await connect(t, {
      withoutPaused: true,
      zeroRuns: [{ region: 0, firstPages: [1], pageCounts: [2] }],
    });
    assert.equal(Buffer.from(await open()).toString(), 'session 1');
    assert.deepEqual(zeros, [[1, 2]]);
  },
);

test(
  'a source whose VM runs accepts at once and is final once the VM stands still; no zeros before that',
  BUDGET,
  async (t) => {
    const { session, zeros, source } = await connect(t, {
      running: true,
      zeroRuns: [{ region: 0, firstPages: [1], pageCounts: [2] }],
      accepted: { bulkPort: 4711 },
    });
    const opening = await session.open(layout, (first, count) => zeros.push([first, count]), true);
    assert.deepEqual([opening.paused, opening.bulkPort, source.opens[0]?.waitUntilPaused], [false, 4711, true]);
    assert.deepEqual(zeros, []);
    source.pause();
    await opening.final;
    assert.deepEqual([opening.paused, zeros], [true, [[1, 2]]]);
  },
);

test(
  'a source that is stopped in the middle of Open is unreachable: the same destination may come again',
  BUDGET,
  async (t) => {
    const reached = Promise.withResolvers<void>();
    const { open, source } = await connect(t, {
      beforeOpenEnds: () => {
        if (source.opens.length > 1) return undefined;
        reached.resolve();
        return new Promise<void>(() => undefined);
      },
    });
    const opening = failure(open());
    await reached.promise;
    await source.kill();
    assert.equal((await opening).reason, 'SOURCE_UNREACHABLE');
    await source.restart();
    assert.equal(Buffer.from(await open()).toString(), 'session 2');
  },
);

test('Complete is said again where the link fails, and not where the source refuses', BUDGET, async (t) => {
  const totals = { pagesByFault: 1, pagesByPrefetch: 2, pagesZero: 3 };
  const { session, source } = await connect(t, {
    onComplete: () => {
      if (source.completes.length < 3) throw new PagewakeError(ErrorReason.SOURCE_LOST, 'try again');
    },
  });
  assert.equal(await session.complete(Buffer.from('s'), totals), undefined);
  assert.equal(source.completes.length, 3);
  assert.deepEqual([source.completes[2]?.pagesByFault, source.completes[2]?.pagesZero], [1n, 3n]);
  const refusing = await connect(t, {
    onComplete: () => {
      throw new PagewakeError(ErrorReason.ALREADY_COMPLETED, 'done before');
    },
  });
  assert.equal((await refusing.session.complete(Buffer.from('s'), totals))?.reasonName, 'ALREADY_COMPLETED');
  assert.equal(refusing.source.completes.length, 1);
});

test('in the blackout the last zero run is enough: the end of the stream is not waited for', BUDGET, async (t) => {
  const { session, source, zeros } = await connect(t, {
    running: true,
    zeroRuns: [
      { region: 0, firstPages: [1], pageCounts: [2] },
      { region: 0, firstPages: [8], pageCounts: [1] },
    ],
    beforeOpenEnds: () => new Promise<void>(() => undefined),
  });
  const opening = await session.open(layout, (first, count) => zeros.push([first, count]), true);
  source.pause();
  await opening.final;
  assert.deepEqual(zeros, [
    [1, 2],
    [8, 1],
  ]);
  opening.close();
});
