/** The migrations of this agent: those under way, and the last that ended. */
import { isFinal } from '@pagewake/core';
import { ErrorReason, PagewakeError } from '../kit.ts';
import type { EndedMigration } from './ended.ts';
import { MigrationSession } from './session.ts';

export type KnownMigration = MigrationSession | EndedMigration;

const KEPT_AFTER_END = 100;

export class SessionRegistry {
  readonly #sessions = new Map<string, KnownMigration>();
  readonly #onForgotten: (migrationId: string) => void;

  /** @param onForgotten a migration that ended long ago is not known any more */
  constructor(onForgotten: (migrationId: string) => void = () => undefined) {
    this.#onForgotten = onForgotten;
  }

  /** @throws PagewakeError MIGRATION_EXISTS where the id is taken or the VM is being migrated already */
  check(migrationId: string, vmId: string): void {
    if (this.#sessions.has(migrationId))
      throw new PagewakeError(ErrorReason.MIGRATION_EXISTS, `migration ${migrationId} exists`, {
        migration_id: migrationId,
      });
    const other = this.active().find((session) => session.vmId === vmId);
    if (other)
      throw new PagewakeError(
        ErrorReason.MIGRATION_EXISTS,
        `VM ${vmId} is being migrated already, as ${other.migrationId}`,
        {
          migration_id: other.migrationId,
          vm_id: vmId,
        },
      );
  }

  /** @throws PagewakeError MIGRATION_EXISTS where another migration's VMM is awaited, or served, on this socket */
  checkSocket(vmmSocket: string): void {
    const other = this.active().find((session) => session.vmmSocket === vmmSocket);
    if (other)
      throw new PagewakeError(
        ErrorReason.MIGRATION_EXISTS,
        `the VMM socket ${vmmSocket} is that of ${other.migrationId}, a migration of VM ${other.vmId}; give another vmm_socket_name`,
        { migration_id: other.migrationId, vm_id: other.vmId },
      );
  }

  /** After the checks, in the same turn. */
  add(session: KnownMigration): void {
    this.#sessions.set(session.migrationId, session);
    this.#forget();
  }

  get(migrationId: string): KnownMigration {
    const session = this.#sessions.get(migrationId);
    if (!session)
      throw new PagewakeError(ErrorReason.UNKNOWN_MIGRATION, `there is no migration ${migrationId} on this agent`, {
        migration_id: migrationId,
      });
    return session;
  }

  all(): KnownMigration[] {
    return [...this.#sessions.values()];
  }

  active(): MigrationSession[] {
    return this.#own().filter((session) => !isFinal(session.phase));
  }

  /** The agent ends. Those that are over may have a VMM that is still answered. */
  async leave(): Promise<void> {
    await Promise.all(this.#own().map((session) => session.leave()));
  }

  #own(): MigrationSession[] {
    return this.all().filter((session): session is MigrationSession => session instanceof MigrationSession);
  }

  #forget(): void {
    const ended = this.all().filter((session) => isFinal(session.phase));
    for (const session of ended.slice(0, Math.max(0, ended.length - KEPT_AFTER_END))) {
      const { migrationId } = session;
      this.#sessions.delete(migrationId);
      if (session instanceof MigrationSession) void session.leave();
      this.#onForgotten(migrationId);
    }
  }
}
