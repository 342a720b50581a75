/** May this guest be moved from here to there? Every refusal says what it is about and what to change. */
import { UserError } from '@pagewake/agent-kit';
import type { QemuView, RamBackend } from './inspect.ts';

/** A view, and how it is called in errors: "the source QEMU at unix:/run/a.qmp". */
export interface Side {
  readonly who: string;
  readonly view: QemuView;
  /** Of this host, as far as its address says. */
  readonly local: boolean;
}

const OLDEST_MAJOR = 8;
/** A guest may have got this far and no migration is under way. */
const AT_REST = new Set([undefined, 'none', 'completed', 'failed', 'cancelled']);
/** QEMU's states that say more than that the guest stands still. */
const NOT_RUNNING: Readonly<Partial<Record<string, string>>> = {
  postmigrate:
    'its guest has been migrated away and runs elsewhere, so it must not run here again; migrate it from where it is now, and end this QEMU (quit)',
  inmigrate:
    'it waits for a guest itself, or takes one in; are --source-qmp and --dest-qmp the wrong way round? Else wait until its guest has arrived and runs',
  prelaunch: 'it was started with -S, and its guest has never run; say cont, or start it without -S',
};
const NEEDED = ['events', 'x-ignore-shared', 'pause-before-switchover'] as const;

/** What keeps or changes guest memory where neither QEMU's own threads nor a userfaultfd see it. */
const REFUSED_PARTS: readonly (readonly [RegExp, string])[] = [
  [/^(vhost-user|cryptodev-vhost-user)/, 'another process maps the guest’s memory and would read zeros'],
  [/^vhost-vdpa/, 'a device reads the guest’s memory past the page tables'],
  [/^vfio-/, 'a device pins the guest’s memory and reads it past the page tables'],
  [/^(ivshmem|virtio-mem|virtio-pmem|nvdimm)/, 'it has memory of its own that would not be moved'],
  [/^(sev|tdx|s390-pv)-?/, 'its memory is encrypted, and cannot be read from outside'],
];

/** Throws UserError. */
export function judge(source: Side, destination: Side): void {
  for (const side of [source, destination]) judgeProgram(side);
  judgeStates(source, destination);
  for (const side of [source, destination]) {
    judgeParts(side);
    judgeBackends(side);
  }
  judgePair(source, destination);
}

function judgeProgram({ who, view: { version, capabilities } }: Side): void {
  const { major, minor, micro } = version;
  if (major < OLDEST_MAJOR) {
    throw new UserError(
      `${who} is version ${[major, minor, micro].join('.')}; ${String(OLDEST_MAJOR)}.0 or later is needed`,
    );
  }
  const missing = NEEDED.find((name) => !capabilities.has(name));
  if (missing !== undefined)
    throw new UserError(`${who} has no migration capability ${missing}; another build is needed`);
}

function judgeStates(source: Side, destination: Side): void {
  if (!AT_REST.has(source.view.migration)) {
    throw new UserError(`${source.who} is migrating already (${source.view.migration ?? ''})`);
  }
  if (source.view.status !== 'running') {
    const hint = NOT_RUNNING[source.view.status];
    throw new UserError(
      `${source.who} is not running its guest but ${source.view.status}${hint === undefined ? '' : `: ${hint}`}`,
    );
  }
  if (destination.view.status !== 'inmigrate') {
    throw new UserError(
      `${destination.who} does not wait for a guest but is ${destination.view.status}; start it anew with -incoming defer`,
    );
  }
  // "setup": it listens since an attempt that ended before anybody had connected.
  if (!AT_REST.has(destination.view.migration) && destination.view.migration !== 'setup') {
    throw new UserError(
      `${destination.who} is taking in another migration (${destination.view.migration ?? ''}); start another one with -incoming defer`,
    );
  }
  // QEMU takes in one migration in its life.
  if (destination.view.migration === 'failed') {
    throw new UserError(`${destination.who} has failed a migration; start it anew with -incoming defer`);
  }
}

function judgeParts({ who, view }: Side): void {
  for (const part of view.parts) {
    const why = REFUSED_PARTS.find(([pattern]) => pattern.test(part))?.[1];
    if (why !== undefined) throw new UserError(`${who} has a ${part}: ${why}; it cannot be migrated with pagewake`);
  }
}

function judgeBackends({ who, view: { backends } }: Side): void {
  if (backends.length === 0) throw new UserError(`${who} has no RAM of a memory backend; ${HOW}`);
  for (const { id, type, share, path } of backends) {
    if (type !== 'memory-backend-file' || path === undefined) {
      const ignored =
        type === 'memory-backend-memfd'
          ? 'QEMU’s x-ignore-shared does not work with it'
          : 'it has no file to be shared';
      throw new UserError(`${who} has its RAM "${id}" in a ${type}: ${ignored}; ${HOW}`);
    }
    if (!share)
      throw new UserError(`${who} has its RAM "${id}" with share=off: nobody else sees what it writes; ${HOW}`);
  }
}

const HOW = 'use -object memory-backend-file,id=ram,size=…,share=on,mem-path=/dev/shm/… -machine …,memory-backend=ram';

function judgePair(source: Side, destination: Side): void {
  const [from, to] = [source.view, destination.view];
  const same = (what: string, here: string, there: string): void => {
    if (here === there) return;
    throw new UserError(
      `the two QEMUs differ: ${what} ${here} on the source, ${there} on the destination; start the destination like the source`,
    );
  };
  same('machine', from.machine, to.machine);
  same('accelerator', from.kvm ? 'kvm' : 'tcg', to.kvm ? 'kvm' : 'tcg');
  same('vCPUs', String(from.vcpus), String(to.vcpus));
  same('RAM backends', idsOf(from.backends), idsOf(to.backends));
  for (const [index, backend] of from.backends.entries()) {
    const other = to.backends[index];
    if (other === undefined) continue;
    same(`RAM "${backend.id}" of bytes`, String(backend.sizeBytes), String(other.sizeBytes));
    same(`RAM "${backend.id}" in pages of bytes`, String(backend.pageSizeBytes), String(other.pageSizeBytes));
    if (other.prealloc) {
      throw new UserError(
        `${destination.who} has its RAM "${other.id}" with prealloc=on: every page would be there before the guest’s own; start it with prealloc=off`,
      );
    }
    // The destination's file is emptied before the guest's memory comes into it.
    if (source.local && destination.local && backend.path === other.path) {
      throw new UserError(
        `both QEMUs have their RAM "${backend.id}" in ${String(backend.path)}, and both seem to be on this host: the destination needs a file of its own`,
      );
    }
  }
}

const idsOf = (backends: readonly RamBackend[]): string => backends.map(({ id }) => id).join(', ');
