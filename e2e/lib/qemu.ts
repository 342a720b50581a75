/** QEMU as a process of a test: an unmodified binary with its RAM in files, a guest of ours inside, and a monitor that belongs to the test. */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { accelOf, type Accel } from '../qemu/accel.ts';
import { guestImage, kernelCommandLine, type GuestOptions } from '../qemu/guest.ts';
import type { QemuParts } from '../qemu/install.ts';
import type { Host } from './hosts.ts';
import { Program, ROOT } from './processes.ts';
import { Qmp } from './qmp.ts';
import { Serial } from './serial.ts';

export const SHIM = join(ROOT, 'shim/build/pagewake-shim.so');
/** RAM files lie on tmpfs, as QEMU's own advice for shared memory has it. */
const RAM_PARENT = '/dev/shm';
const START_MS = 20_000;
const LAST_WORDS_MS = 1000;
const MAC = '52:54:00:70:77:01';

/** What the guest's RAM is. Only `file` can be migrated by pagewake; the others are there to be refused. */
export type Backend = 'file' | 'private-file' | 'memfd' | 'ram';

export interface DiskOptions {
  /** The same raw image on both sides: shared storage. */
  readonly path: string;
  /** How QEMU reads it, past the host's page cache. Default `threads`. */
  readonly aio?: 'threads' | 'native' | 'io_uring';
}

export interface ShimOptions {
  /** The destination agent's socket for this VM. */
  readonly socket: string;
  readonly vm?: string;
}

export interface QemuOptions {
  readonly parts: QemuParts;
  /** The destination waits with `-incoming defer`. */
  readonly role: 'source' | 'destination';
  readonly host: Host;
  /** For its sockets. Short: a Unix socket's path has at most 107 bytes. */
  readonly folder: string;
  readonly memoryMiB: number;
  readonly cpus?: number;
  readonly machine?: 'pc' | 'q35';
  readonly vga?: boolean;
  readonly backend?: Backend;
  /** More than one: as many backends, one a node, the CPUs spread over them. Needs as many `cpus`. */
  readonly numaNodes?: number;
  /** QEMU touches every page at its start. */
  readonly prealloc?: boolean;
  readonly disk?: DiskOptions;
  /** A tap device in the host's namespace. */
  readonly tap?: string;
  readonly balloon?: boolean;
  /** As libvirt starts it: seccomp, no new processes, no new privileges. */
  readonly sandbox?: boolean;
  readonly shim?: ShimOptions;
  /** Default: KVM where this machine runs stock guests under it. */
  readonly accel?: Accel;
  /** The same on both sides. Without: no kernel; the firmware finds nothing to boot. */
  readonly guest?: GuestOptions;
  readonly args?: readonly string[];
}

export interface Qemu {
  readonly program: Program;
  /** For `pagewake migrate qemu`, or whoever drives it: the test does not use it. */
  readonly qmpPath: string;
  /** The test's own. */
  readonly qmp: Qmp;
  readonly serial: Serial;
  /** One a backend, in the order of their ids; empty where RAM is no file. */
  readonly ramFiles: readonly string[];
  /** Kills it, frozen or not, and removes its RAM files. */
  stop(): Promise<void>;
}

let started = 0;

/** Why RAM files cannot be had here, or undefined. */
export function whyNoRamFiles(): string | undefined {
  return existsSync(RAM_PARENT) ? undefined : `${RAM_PARENT} is not there`;
}

function backendObject(kind: Backend, id: string, sizeMiB: number, file: string, prealloc: boolean): string {
  const common = `id=${id},size=${sizeMiB}M${prealloc ? ',prealloc=on' : ''}`;
  switch (kind) {
    case 'file':
      return `memory-backend-file,${common},share=on,mem-path=${file}`;
    case 'private-file':
      return `memory-backend-file,${common},share=off,mem-path=${file}`;
    case 'memfd':
      return `memory-backend-memfd,${common},share=on`;
    case 'ram':
      return `memory-backend-ram,${common}`;
  }
}

function memoryArgs(o: QemuOptions, files: readonly string[]): string[] {
  const { machine = 'pc', cpus = 1, backend = 'file', prealloc = false } = o;
  const nodes = files.length;
  const object = (id: string, index: number): string[] => [
    '-object',
    backendObject(backend, id, o.memoryMiB / nodes, files[index] ?? '', prealloc),
  ];
  if (nodes === 1) return [...object('ram', 0), '-machine', `${machine},memory-backend=ram`];
  const cpusOf = (node: number): string => `${(node * cpus) / nodes}-${((node + 1) * cpus) / nodes - 1}`;
  return [
    ...['-machine', machine],
    ...files.flatMap((_, node) => [
      ...object(`ram${node}`, node),
      ...['-numa', `node,nodeid=${node},cpus=${cpusOf(node)},memdev=ram${node}`],
    ]),
  ];
}

function deviceArgs(o: QemuOptions): string[] {
  const blockdev = (disk: DiskOptions): string =>
    `driver=raw,node-name=disk0,cache.direct=on,file.driver=file,file.filename=${disk.path},file.aio=${disk.aio ?? 'threads'}`;
  return [
    ...(o.vga === true ? ['-vga', 'std'] : []),
    ...(o.disk ? ['-blockdev', blockdev(o.disk), '-device', 'virtio-blk-pci,drive=disk0'] : []),
    ...(o.tap === undefined
      ? []
      : [
          ...['-netdev', `tap,id=net0,ifname=${o.tap},script=no,downscript=no`],
          // No boot from the network: its ROM is a package of its own.
          ...['-device', `virtio-net-pci,netdev=net0,mac=${MAC},romfile=`],
        ]),
    ...(o.balloon === true ? ['-device', 'virtio-balloon-pci,id=balloon0'] : []),
    ...(o.sandbox === true
      ? ['-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny']
      : []),
  ];
}

function guestArgs(o: QemuOptions): string[] {
  if (!o.guest) return [];
  const { kernel, initrd } = guestImage(o.parts);
  return ['-kernel', kernel, '-initrd', initrd, '-append', kernelCommandLine(o.guest)];
}

/** In front of QEMU's command line: only QEMU has the library, not what puts it on its host. */
function preload({ socket, vm }: ShimOptions, ramFiles: readonly string[]): string[] {
  const values = { LD_PRELOAD: SHIM, PAGEWAKE_SOCKET: socket, PAGEWAKE_RAM: ramFiles.join(':'), PAGEWAKE_VM: vm };
  return [
    'env',
    ...Object.entries(values).flatMap(([name, value]) => (value === undefined ? [] : [`${name}=${value}`])),
  ];
}

/** Tries until the program listens, or has ended. */
async function connected<T>(program: Program, connect: () => Promise<T>): Promise<T> {
  const ended = program.exited.then((code) => {
    throw new Error(`${program.name} ended with ${code}: ${program.stderr.slice(-2000)}`);
  });
  ended.catch(() => undefined);
  for (const until = performance.now() + START_MS; ;) {
    try {
      return await Promise.race([connect(), ended]);
    } catch (error) {
      // Not there yet, or there and not listening yet.
      const waits = error instanceof Error && 'code' in error;
      if (!waits || performance.now() > until) {
        // What it printed at its end says more than that it hung up.
        await Promise.race([sleep(LAST_WORDS_MS), ended]);
        throw error;
      }
    }
    await Promise.race([sleep(10), ended]);
  }
}

/** Starts it; resolves when its monitor answers. The guest runs, or waits for a migration. */
export async function startQemu(options: QemuOptions): Promise<Qemu> {
  const { role, host, folder, shim, backend = 'file', cpus = 1 } = options;
  const name = `${role}-${process.pid}-${started++}`;
  const socket = (what: string): string => join(folder, `${name}.${what}`);
  const ramFolder = mkdtempSync(join(RAM_PARENT, `pagewake-${role}-`));
  const nodes = Array.from({ length: options.numaNodes ?? 1 }, (_, node) => node);
  const ramFiles = nodes.map((node) => join(ramFolder, `ram${node}`));
  const onFiles = backend === 'file' || backend === 'private-file';
  const program = new Program(`QEMU (${role})`, host, [
    ...(shim ? preload(shim, ramFiles) : []),
    options.parts.qemu,
    ...['-accel', options.accel ?? accelOf(options.parts), '-m', `${options.memoryMiB}M`, '-smp', String(cpus)],
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot', '-monitor', 'none'],
    ...memoryArgs(options, ramFiles),
    ...['-chardev', `socket,id=ser,path=${socket('ser')},server=on,wait=off`, '-serial', 'chardev:ser'],
    // Each monitor serves one client: one for the orchestrator, one for the test.
    ...['-qmp', `unix:${socket('qmp')},server=on,wait=off`, '-qmp', `unix:${socket('own')},server=on,wait=off`],
    ...(role === 'destination' ? ['-incoming', 'defer'] : []),
    ...deviceArgs(options),
    ...guestArgs(options),
    ...(options.args ?? []),
  ]);
  const stop = async (): Promise<void> => {
    program.signal('SIGKILL');
    await program.exited;
    rmSync(ramFolder, { recursive: true, force: true });
  };
  try {
    const qmp = await connected(program, () => Qmp.connect(socket('own')));
    const serial = await connected(program, () => Serial.connect(socket('ser')));
    return { program, qmp, qmpPath: socket('qmp'), serial, ramFiles: onFiles ? ramFiles : [], stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** The guest has filled its memory and works on it. */
export async function guestWorks(qemu: Qemu): Promise<void> {
  await qemu.serial.waitFor('end of filling', (line) => line['event'] === 'filled');
  await qemu.serial.nextHeartbeat();
}
