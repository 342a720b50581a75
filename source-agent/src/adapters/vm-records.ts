/** What is kept of each VM in the state folder, for the agent that comes after this one. */
import { createHash } from 'node:crypto';
import { fromJson, toJson, type JsonValue } from '@bufbuild/protobuf';
import { messageOf, type Logger, type StateFolder } from '@pagewake/agent-kit';
import { MemorySourceSchema, type MemorySource } from '@pagewake/proto';
import { z } from 'zod';
import type { GuestImage } from '../domain/guest-image.ts';
import type { VmRegistry } from '../domain/registry.ts';
import type { Vm, VmKeeper } from '../domain/vm.ts';

const MAX_UINT32 = 0xffff_ffff;

const schema = z.strictObject({
  vmId: z.string().min(1),
  generation: z.int().positive().max(MAX_UINT32),
  tokenDigestHex: z.string().regex(/^[0-9a-f]{64}$/),
  registeredAtMs: z.number(),
  state: z.enum(['registered', 'ready', 'serving']),
  destinationId: z.string(),
  /** The MemorySource of its Register, in protobuf's JSON. */
  memory: z.json(),
  identity: z.string(),
});

/** The part that never changes. */
interface Kept {
  readonly memory: JsonValue;
  readonly identity: string;
}

export class VmRecords implements VmKeeper {
  readonly #folder: StateFolder;
  readonly #log: Logger;
  readonly #kept = new WeakMap<Vm, Kept>();

  constructor(folder: StateFolder, log: Logger) {
    this.#folder = folder;
    this.#log = log;
  }

  /** A VM that was registered with this memory. */
  registered(vm: Vm, memory: MemorySource): void {
    this.#kept.set(vm, { memory: toJson(MemorySourceSchema, memory), identity: vm.image.identity });
    this.changed(vm);
  }

  changed(vm: Vm): void {
    const kept = this.#kept.get(vm);
    const { record } = vm;
    if (kept === undefined || record === undefined) return;
    try {
      this.#folder.write(nameOf(vm.vmId), { ...record, ...kept });
    } catch (error) {
      // An old record would say less than what is so: better none.
      this.#log.error({ vmId: vm.vmId, error: messageOf(error) }, 'not kept: this VM would not survive the agent');
      this.gone(vm);
    }
  }

  gone(vm: Vm): void {
    if (!this.#kept.delete(vm)) return;
    try {
      this.#folder.remove(nameOf(vm.vmId));
    } catch (error) {
      this.#log.error({ vmId: vm.vmId, error: messageOf(error) }, 'its record cannot be removed');
    }
  }

  /** Takes up what the agent before this one served: the same memory, in the same state. Of what is not the same any more the log tells. */
  async restore(registry: VmRegistry, open: (memory: MemorySource) => Promise<GuestImage>): Promise<void> {
    for (const { name, record } of this.#folder.read(schema)) {
      const { memory, identity, ...rest } = record;
      const about = { vmId: rest.vmId, generation: rest.generation, state: rest.state };
      try {
        const image = await open(fromJson(MemorySourceSchema, memory));
        if (image.identity !== identity) {
          image.close();
          throw new Error(`its memory is another now: ${image.identity}, not ${identity}`);
        }
        this.#kept.set(registry.restore(rest, image), { memory, identity });
        this.#log.info(about, 'taken up again');
      } catch (error) {
        this.#log.error(
          { ...about, error: messageOf(error) },
          'not taken up again: its destination will be told that nobody knows this VM',
        );
        this.#folder.remove(name);
      }
    }
  }
}

/** A VM's name may hold anything that a terminal can show. */
function nameOf(vmId: string): string {
  return `vm-${createHash('sha256').update(vmId).digest('hex').slice(0, 32)}`;
}
