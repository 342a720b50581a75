/** What `npm run lab` can be told. */
import { Command, InvalidArgumentError } from 'commander';
import { STAGE_NAMES, type StageName } from './stages.ts';

export type Task =
  | { readonly kind: 'stages'; readonly names: readonly StageName[]; readonly quick: boolean }
  | { readonly kind: 'shell' }
  | { readonly kind: 'exec'; readonly command: string }
  /** The kernel and nothing else. */
  | { readonly kind: 'build' };

export interface LabOptions {
  readonly task: Task;
  readonly memoryMiB: number;
  readonly deadlineS: number;
  readonly kernelArguments: readonly string[];
}

interface Parsed {
  readonly quick: boolean;
  readonly only?: readonly StageName[];
  readonly shell: boolean;
  readonly exec?: string;
  readonly build: boolean;
  readonly memory: number;
  readonly deadline: number;
  readonly append: string;
}

const isStage = (name: string): name is StageName => (STAGE_NAMES as readonly string[]).includes(name);

function stages(text: string): StageName[] {
  const names = text.split(',').map((name) => name.trim());
  return names.map((name) => {
    if (!isStage(name))
      throw new InvalidArgumentError(`there is no stage "${name}"; there are ${STAGE_NAMES.join(', ')}.`);
    return name;
  });
}

function atLeast(least: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!Number.isInteger(value) || value < least)
      throw new InvalidArgumentError(`give a whole number from ${least} on.`);
    return value;
  };
}

const MEMORY_MIB = 4096;
const DEADLINE_S = 600;

/** Ends the process with usage where the arguments are wrong; `strict` throws instead. */
export function parseOptions(argv: readonly string[], strict = false): LabOptions {
  const command = new Command('npm run lab --')
    .description(
      'Boots a kernel of its own in an emulated machine (QEMU, TCG) whose root is this machine’s, read-only, and shows in it what no mainline ' +
        'kernel can: guest_memfd with userfaultfd, write() and stage-2 faults as exits. Builds that kernel first where it is not there.',
    )
    .option('--quick', 'shorter where a stage can be', false)
    .option('--only <stages>', `some of ${STAGE_NAMES.join(', ')}`, stages)
    .option('--shell', 'a shell in it instead', false)
    .option('--exec <command>', 'one shell command in it instead, in the checkout; its exit code is this one’s')
    .option('--build', 'the kernel alone', false)
    .option('--memory <MiB>', 'of the emulated machine', atLeast(1024), MEMORY_MIB)
    .option('--deadline <s>', 'for --exec', atLeast(1), DEADLINE_S)
    .option('--append <arguments>', 'more for the kernel’s command line, such as kvm_amd.npt=0', '');
  if (strict) command.exitOverride().configureOutput({ writeErr: () => undefined });
  const options = command.parse(argv, { from: 'user' }).opts<Parsed>();
  const alone = [options.only || options.quick ? '--only or --quick' : '', options.shell ? '--shell' : ''];
  const asked = [...alone, options.exec === undefined ? '' : '--exec', options.build ? '--build' : ''].filter(Boolean);
  if (asked.length > 1) command.error(`error: ${asked.join(' and ')} do not go together`);
  return {
    task: taskOf(options),
    memoryMiB: options.memory,
    deadlineS: options.deadline,
    kernelArguments: options.append.split(/\s+/).filter(Boolean),
  };
}

function taskOf({ shell, exec, build, only, quick }: Parsed): Task {
  if (shell) return { kind: 'shell' };
  if (exec !== undefined) return { kind: 'exec', command: exec };
  if (build) return { kind: 'build' };
  return { kind: 'stages', names: only ?? STAGE_NAMES, quick };
}
