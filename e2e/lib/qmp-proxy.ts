/** Between an orchestrator and a QEMU: the point at which a test holds a migration, and a QEMU that says it does what it does not do. */
import { connect, createServer } from 'node:net';
import { createInterface } from 'node:readline';
import type { Scope } from './cleanup.ts';

export interface QmpCommand {
  readonly execute: string;
  readonly arguments?: Readonly<Record<string, unknown>>;
}

let proxies = 0;

/**
 * @param meet sees each command before QEMU does; QEMU gets what it gives back, once it does
 * @returns the path of the socket to give to the orchestrator
 */
export async function proxyQmp(
  t: Scope,
  qmpPath: string,
  meet: (command: QmpCommand) => QmpCommand | Promise<QmpCommand>,
): Promise<string> {
  const path = `${qmpPath}-${proxies++}`;
  const server = createServer((client) => {
    const qemu = connect(qmpPath);
    qemu.pipe(client);
    let last = Promise.resolve();
    createInterface({ input: client })
      .on('line', (text) => {
        // One after the other, as QEMU would take them.
        last = last.then(
          async () => void qemu.write(`${JSON.stringify(await meet(JSON.parse(text) as QmpCommand))}\n`),
        );
      })
      .on('error', () => undefined);
    client.on('close', () => qemu.destroy());
    for (const socket of [client, qemu]) socket.on('error', () => undefined);
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  t.after(() => server.close());
  return path;
}

/** QEMU is never asked for this capability, and the orchestrator hears that it has it. */
export function without(capability: string): (command: QmpCommand) => QmpCommand {
  return (command) => {
    const asked = command.arguments?.['capabilities'];
    if (command.execute !== 'migrate-set-capabilities' || !Array.isArray(asked)) return command;
    const left = (asked as { capability: string }[]).filter((c) => c.capability !== capability);
    return { ...command, arguments: { capabilities: left } };
  };
}

/** Does something when a command comes by, before QEMU gets it. */
export function before(name: string, act: () => Promise<void>): (command: QmpCommand) => Promise<QmpCommand> {
  return async (command) => {
    if (command.execute === name) await act();
    return command;
  };
}
