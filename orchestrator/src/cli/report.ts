/** What `migrate` says while it runs and at its end: for people, or for programs. */
import { withReason } from '../errors.ts';
import type { MigrationEvent } from '../events.ts';
import type { MigrationResult } from '../options.ts';
import type { MigrationPhase } from '../phase.ts';
import { summaryOf } from '../view.ts';
import { errorObject } from './exit.ts';
import { bytes, duration, microseconds } from './format.ts';
import { LiveProgress } from './live.ts';
import type { Terminal } from './terminal.ts';

export interface Report {
  event(event: MigrationEvent): void;
  done(result: MigrationResult): void;
  failed(error: unknown): void;
}

const SAID: Readonly<Record<MigrationPhase, string>> = {
  preparing: 'preparing',
  blackout: 'prepared; pausing the guest on the source',
  filling: 'the guest runs on the destination; its memory follows',
  completed: 'the destination holds every page',
  'failed-untouched': 'failed; nothing was touched',
  'failed-source-runs': 'failed; the guest runs on the source',
  'failed-source-paused': 'failed; the guest is paused on the source',
  'failed-guest-lost': 'failed; the guest on the destination is lost',
  'failed-unknown': 'failed; where the guest is has to be looked up',
  detached: 'not followed any longer; the migration goes on',
};

export class TextReport implements Report {
  readonly #live: LiveProgress;

  constructor(terminal: Terminal) {
    this.#live = new LiveProgress(terminal);
  }

  event(event: MigrationEvent): void {
    switch (event.type) {
      case 'started':
        this.#live.say(`migration ${event.migrationId} of VM ${event.vmId}`);
        return;
      case 'phase':
        this.#live.say(`${SAID[event.phase]} (${event.previous}: ${duration(event.ms)})`);
        return;
      case 'progress':
        this.#live.show(event.migration);
        return;
      case 'interrupted':
        this.#live.say(`the destination has lost the source and tries again: ${withReason(event.error)}`);
        return;
      case 'recovered':
        this.#live.say('the source is back');
        return;
      case 'warning':
        this.#live.say(`warning: ${event.message}`);
        return;
      case 'step':
        return;
    }
  }

  done(result: MigrationResult): void {
    const { pages, faults, wireBytes } = summaryOf(result.migration);
    this.#live.say(
      `done: downtime ${duration(result.downtimeMs)}, whole after ${duration(result.totalMs)}; ` +
        `${String(pages.total)} pages: ${String(pages.byFault)} by fault, ${String(pages.byPrefetch)} by prefetch, ${String(pages.zero)} zero; ` +
        `${bytes(wireBytes)} on the wire; ${String(faults.total)} faults, ` +
        `stall p50 ${microseconds(faults.stallP50Us)} p99 ${microseconds(faults.stallP99Us)} max ${microseconds(faults.stallMaxUs)}`,
    );
  }

  failed(): void {
    this.#live.end();
  }
}

export class JsonReport implements Report {
  readonly #terminal: Terminal;

  constructor(terminal: Terminal) {
    this.#terminal = terminal;
  }

  event(event: MigrationEvent): void {
    if (event.type === 'progress') this.#line({ type: 'progress', migration: summaryOf(event.migration) });
    else if (event.type === 'interrupted') this.#line({ type: 'interrupted', error: errorObject(event.error) });
    else this.#line(event);
  }

  done(result: MigrationResult): void {
    this.#line({ type: 'result', ...result, migration: summaryOf(result.migration) });
  }

  failed(error: unknown): void {
    this.#line({ type: 'failed', error: errorObject(error) });
  }

  #line(value: object): void {
    this.#terminal.out(`${JSON.stringify(value)}\n`);
  }
}
