/** What `npm run lab` shows, in turn. A stage is one or more boots, each with a command and a judge of what it said. */
import { kernelChecks } from './image.ts';
import { checksVerdict, linesVerdict, testsVerdict, type Verdict } from './verdict.ts';

export const STAGE_NAMES = ['kernel', 'probe', 'native', 'migrate', 'populate'] as const;
export type StageName = (typeof STAGE_NAMES)[number];

export interface Run {
  readonly name: string;
  /** For a shell in the checkout's root, with the project's Node first on PATH; PAGEWAKE_LAB=1, and PAGEWAKE_LAB_QUICK=1 with --quick. */
  readonly command: string;
  readonly kernelArguments?: readonly string[];
  /** Of the whole boot. */
  readonly deadlineS: number;
  readonly judge: (output: readonly string[], code: number) => Verdict;
}

export interface Stage {
  readonly name: StageName;
  readonly what: string;
  runs(quick: boolean): readonly Run[];
}

const SHADOW_MMU = ['kvm_amd.npt=0'];
/** No reason to skip that names what this kernel is for is a good one here. */
const MUST_RUN = /guest_memfd|userfault|KVM_|kernel/i;
/** The head of the table: what a kernel does not have is left out of it. */
const COPY_BESIDE_WRITE = /^\d+ MiB guest_memfd, a call +UFFDIO_COPY +write\(\) .* write\(\)\+CONTINUE /;
const QUOTE = (path: string): string => `'${path.replaceAll("'", `'\\''`)}'`;

/** One process for all the files of a run: Node takes four seconds to start there. */
const nodeTest = (...files: readonly string[]): string =>
  `node --test --test-isolation=none --test-reporter=spec --test-timeout=300000 ${files.join(' ')}`;

export const STAGES: readonly Stage[] = [
  {
    name: 'kernel',
    what: 'the kernel itself, by a program of its own: userfaultfd and write() on guest_memfd, the userfault bitmap, races, errors',
    runs: (quick) => {
      const program = QUOTE(kernelChecks());
      const stressS = quick ? 3 : 15;
      return [
        { name: 'nested paging', command: `${program} ${stressS}`, deadlineS: 240, judge: checksVerdict },
        {
          name: 'shadow paging',
          command: `${program} --shadow ${stressS}`,
          kernelArguments: SHADOW_MMU,
          deadlineS: 240,
          judge: checksVerdict,
        },
      ];
    },
  },
  {
    name: 'probe',
    what: 'pagewake probe finds the whole design',
    runs: () => [
      {
        name: 'pagewake probe',
        command: 'node orchestrator/bin/pagewake.mjs probe',
        deadlineS: 120,
        judge: (output, code) =>
          linesVerdict(output, code, [
            /^userfaultfd on guest_memfd +yes/,
            /^write\(\) to guest_memfd +yes/,
            /^KVM_MEM_USERFAULT +yes/,
            /^guest-memfd-full +yes +post-copy/,
            /^memfd-userfault +yes +post-copy/,
          ]),
      },
    ],
  },
  {
    name: 'native',
    what: 'the addon’s calls on guest_memfd',
    runs: () => [
      {
        name: 'native tests',
        command: nodeTest('native/test/guest-memfd*.test.ts', 'native/test/probe.test.ts'),
        deadlineS: 300,
        judge: (output, code) => testsVerdict(output, code, MUST_RUN),
      },
    ],
  },
  {
    name: 'migrate',
    what: 'guests at ring 0 on guest_memfd, moved while they and their VMM’s own threads touch it',
    runs: (quick) => [
      {
        name: 'migrations',
        // The large guest's size: each of its pages is filled, moved, looked at by the guest and verified, all of it emulated.
        command: `PAGEWAKE_LAB_RAM=${quick ? 64 : 512} ${nodeTest('e2e/test/guest-memfd.test.ts')}`,
        deadlineS: quick ? 900 : 3000,
        judge: (output, code) => testsVerdict(output, code, MUST_RUN),
      },
    ],
  },
  {
    name: 'populate',
    what: 'empty memory filled by each call that can, as the authors of the guest_memfd series compared them',
    runs: (quick) => [
      {
        name: 'bench',
        command: `node bench/main.ts ${quick ? '--smoke' : '--quick'} --only populate`,
        deadlineS: 600,
        judge: (output, code) => linesVerdict(output, code, [COPY_BESIDE_WRITE]),
      },
    ],
  },
];
