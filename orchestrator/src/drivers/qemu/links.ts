/** The QMP connections of one migration, opened when first needed and again after they were let go. */
import { UserError } from '@pagewake/agent-kit';
import type { QmpAddress } from '../../qmp/address.ts';
import { QmpClient } from '../../qmp/client.ts';

export class QmpLink {
  readonly address: QmpAddress;
  readonly #whose: string;
  readonly #hint: string | undefined;
  #client: Promise<QmpClient> | undefined;

  /** `whose`: "source QEMU"; `hint`: what to look at where it is not there. */
  constructor(address: QmpAddress, whose: string, hint?: string) {
    this.address = address;
    this.#whose = whose;
    this.#hint = hint;
  }

  get who(): string {
    return `the ${this.#whose} at ${this.address.text}`;
  }

  /** The one that there is, if it stands. */
  async client(signal?: AbortSignal, timeoutMs?: number): Promise<QmpClient> {
    const open = await this.#client?.catch(() => undefined);
    if (open !== undefined && open.ended === undefined) return open;
    this.#client = QmpClient.connect(this.address, this.#whose, { signal, timeoutMs, hint: this.#hint });
    return this.#client;
  }

  /** The one that there is and nothing else: a QEMU that was started anew at the same place is another one. */
  async same(): Promise<QmpClient> {
    if (this.#client === undefined) throw new UserError(`${this.who} was not connected`);
    return this.#client;
  }

  async close(): Promise<void> {
    const open = await this.#client?.catch(() => undefined);
    open?.close();
  }
}
