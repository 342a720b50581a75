/** What the policy chooses for each tier, beside what each call was measured to cost here: the choice is to be the winner, or to have a reason. */
import { callForData, callForPrefetch, type ContentCall, type FaultOrigin, type MemoryTraits } from '@pagewake/core';
import { amount, kib, table, type Cells } from '../lib/table.ts';
import { CALL_TITLES, FILES, type FileKind, type PopulateCall, type PopulateRow } from './populate.ts';

interface Job {
  readonly tier: string;
  readonly file: FileKind;
  /** `nobody`: prefetch, in large pieces; the others wait for one page. */
  readonly waits: FaultOrigin | 'nobody';
  readonly trapped: boolean;
  readonly candidates: readonly PopulateCall[];
  /** Why the policy's call is right where another was quicker at filling alone. */
  readonly because: string;
}

/** Pages of 4 KiB, as the VMM of each kind registers them. @param writable as this kernel was seen to be */
function traitsOf(file: FileKind, writable: boolean): MemoryTraits {
  const of = { huge: false, exactWrite: true, writable };
  return file === 'memfd'
    ? { file: 'shared', minor: false, bitmap: false, ...of }
    : { file: 'guest-memfd', minor: true, bitmap: true, ...of };
}

const ONE_CALL = 'one call that also wakes; the other two need MINOR, which is a second event a page';
const NO_MAPPING = 'it needs no mapping of the VMM’s, and leaves no page table entries that no vCPU asks for';

const JOBS: readonly Job[] = [
  {
    tier: 'guest-memfd-full',
    file: 'guest_memfd',
    waits: 'user-space',
    trapped: true,
    candidates: ['guestCopy', 'guestWriteContinue'],
    because: ONE_CALL,
  },
  {
    tier: 'guest-memfd-full',
    file: 'guest_memfd',
    waits: 'stage2-exit',
    trapped: true,
    candidates: ['guestCopy', 'guestWrite'],
    because: NO_MAPPING,
  },
  {
    tier: 'guest-memfd-full',
    file: 'guest_memfd',
    waits: 'nobody',
    trapped: true,
    candidates: ['guestCopy', 'guestWrite'],
    because: NO_MAPPING,
  },
  {
    tier: 'guest-memfd-eager',
    file: 'guest_memfd',
    waits: 'nobody',
    trapped: false,
    candidates: ['guestWrite', 'guestMemcpy'],
    because: 'a guest_memfd without write() takes nothing else',
  },
  {
    tier: 'memfd-userfault',
    file: 'memfd',
    waits: 'stage2-exit',
    trapped: true,
    candidates: ['copy', 'write'],
    because: NO_MAPPING,
  },
  {
    tier: 'memfd',
    file: 'memfd',
    waits: 'user-space',
    trapped: true,
    candidates: ['copy', 'writeContinue'],
    because: ONE_CALL,
  },
  {
    tier: 'memfd',
    file: 'memfd',
    waits: 'stage2-trap',
    trapped: true,
    candidates: ['copy', 'write'],
    because: 'KVM maps the page itself when it comes back',
  },
  { tier: 'memfd', file: 'memfd', waits: 'nobody', trapped: true, candidates: ['copy', 'write'], because: NO_MAPPING },
];

/** Less apart than two runs of the same call are. */
const NOISE = 1.05;
const FAULT_BYTES = 4096;
/** Prefetch installs runs of this size at most. */
const RUN_BYTES = 256 * 1024;

const CALLS: Readonly<Record<FileKind, Readonly<Partial<Record<ContentCall, PopulateCall>>>>> = {
  memfd: { copy: 'copy', write: 'write' },
  guest_memfd: { copy: 'guestCopy', write: 'guestWrite', store: 'guestMemcpy' },
};

function chosen({ file, waits, trapped }: Job, writable: boolean): PopulateCall {
  const traits = traitsOf(file, writable);
  const call = waits === 'nobody' ? callForPrefetch(traits, trapped) : callForData(waits, traits);
  const measured = CALLS[file][call];
  if (measured === undefined) throw new Error(`the policy chooses ${call} for ${file}, which nobody measures`);
  return measured;
}

export interface Choice {
  readonly tier: string;
  readonly waits: Job['waits'];
  readonly pieceBytes: number;
  readonly chosen: PopulateCall;
  /** Medians of those that this kernel has. */
  readonly ms: Readonly<Partial<Record<PopulateCall, number>>>;
  /** Undefined where only one was measured, or the first two are as good as equal. */
  readonly winner: PopulateCall | undefined;
  readonly because: string;
}

/** Of what this kernel can: a job whose chosen call it does not have is left out. */
export function choicesOf(rows: readonly PopulateRow[]): readonly Choice[] {
  return JOBS.flatMap((job) => {
    const row = rows.findLast(({ pieceBytes }) => pieceBytes <= (job.waits === 'nobody' ? RUN_BYTES : FAULT_BYTES));
    const call = chosen(job, row?.ms[job.file === 'memfd' ? 'write' : 'guestWrite'] !== undefined);
    if (row?.ms[call] === undefined) return [];
    const had = job.candidates.flatMap((candidate) => {
      const median = row.ms[candidate]?.median;
      return median === undefined ? [] : [{ candidate, median }];
    });
    const [first, second] = had.toSorted((a, b) => a.median - b.median);
    const winner = first && second && second.median > first.median * NOISE ? first.candidate : undefined;
    const ms = Object.fromEntries(had.map(({ candidate, median }) => [candidate, median]));
    return [{ ...job, pieceBytes: row.pieceBytes, chosen: call, ms, winner }];
  });
}

function verdict({ chosen, winner, ms, because }: Choice): string {
  if (Object.keys(ms).length < 2) return 'nothing to set it against on this kernel';
  if (winner === undefined) return `as good as equal; ${because}`;
  const other = Math.min(...Object.entries(ms).flatMap(([call, median]) => (call === winner ? [] : [median])));
  const by = `${((other / (ms[winner] ?? Number.NaN) - 1) * 100).toFixed(0)} %`;
  return winner === chosen ? `it wins by ${by}` : `${CALL_TITLES[winner]} wins by ${by}, but: ${because}`;
}

export function choicesTable(rows: readonly PopulateRow[]): string {
  const calls = (choice: Choice): string =>
    [...FILES.memfd, ...FILES.guest_memfd]
      .flatMap((call) =>
        choice.ms[call] === undefined ? [] : [`${CALL_TITLES[call]} ${amount(choice.ms[call], 'ms')}`],
      )
      .join(', ');
  const cells = (choice: Choice): Cells => [
    choice.tier,
    choice.waits,
    CALL_TITLES[choice.chosen],
    kib(choice.pieceBytes),
    calls(choice),
    verdict(choice),
  ];
  const head = ['tier', 'who waits', 'the policy’s call', 'a call', 'measured', ''];
  return table(head, choicesOf(rows).map(cells), head.length);
}
