/** What a QEMU says of itself over QMP, asked once and judged elsewhere. Changes nothing. */
import { z } from 'zod';
import type { QmpClient } from '../../qmp/client.ts';
import { QmpRefused } from '../../qmp/errors.ts';
import type { QemuVersion } from '../../qmp/messages.ts';
import { readRamBlocks } from './ram-blocks.ts';

/** One memory backend that is guest RAM, as QEMU describes it. */
export interface RamBackend {
  readonly id: string;
  /** "memory-backend-file", … */
  readonly type: string;
  readonly share: boolean;
  readonly prealloc: boolean;
  readonly sizeBytes: number;
  readonly pageSizeBytes: number;
  /** Undefined: it has no file. */
  readonly path: string | undefined;
  /** Where in the file it begins, bytes. */
  readonly fileOffset: number;
}

export interface QemuView {
  readonly version: QemuVersion;
  /** What -name gave it. */
  readonly name: string | undefined;
  /** "running", "paused", "inmigrate", … */
  readonly status: string;
  /** Undefined: it has not migrated yet. */
  readonly migration: string | undefined;
  readonly capabilities: ReadonlySet<string>;
  /** "pc-i440fx-10.0-machine" */
  readonly machine: string;
  readonly kvm: boolean;
  readonly vcpus: number;
  /** Sorted by id, numbers by their value. */
  readonly backends: readonly RamBackend[];
  /** Types of devices and of network and other back ends: "virtio-blk-pci", "vhost-user" */
  readonly parts: readonly string[];
}

export interface InspectLimits {
  readonly signal?: AbortSignal | undefined;
}

const statusSchema = z.object({ status: z.string() });
const migrationSchema = z.object({ status: z.string().optional() });
const capabilitiesSchema = z.array(z.object({ capability: z.string(), state: z.boolean() }));
const memdevSchema = z.array(
  z.object({ id: z.string().optional(), size: z.number(), share: z.boolean().optional(), prealloc: z.boolean() }),
);
const qomListSchema = z.array(z.object({ name: z.string(), type: z.string() }));

/** The state alone: for looking at a QEMU that somebody waits for. */
export async function statusOf(
  client: QmpClient,
  limits: InspectLimits & { readonly timeoutMs?: number } = {},
): Promise<string> {
  return (await client.execute('query-status', {}, statusSchema, limits)).status;
}

/** Undefined: none has been tried. */
export async function migrationOf(
  client: QmpClient,
  limits: InspectLimits & { readonly timeoutMs?: number } = {},
): Promise<string | undefined> {
  return (await client.execute('query-migrate', {}, migrationSchema, limits)).status;
}

export async function capabilitiesOf(
  client: QmpClient,
  limits: InspectLimits = {},
): Promise<ReadonlyMap<string, boolean>> {
  const known = await client.execute('query-migrate-capabilities', {}, capabilitiesSchema, limits);
  return new Map(known.map(({ capability, state }) => [capability, state]));
}

export async function inspect(client: QmpClient, limits: InspectLimits): Promise<QemuView> {
  const status = await statusOf(client, limits);
  const migration = await migrationOf(client, limits);
  const { name } = await client.execute('query-name', {}, z.object({ name: z.string().optional() }), limits);
  const kvm = await client.execute('query-kvm', {}, z.object({ enabled: z.boolean() }), limits);
  const vcpus = await client.execute('query-cpus-fast', {}, z.array(z.unknown()), limits);
  const objects = await childrenOf(client, '/objects', limits);
  return {
    version: client.version,
    name,
    status,
    migration,
    capabilities: new Set((await capabilitiesOf(client, limits)).keys()),
    machine: await property(client, '/machine', 'type', z.string(), limits),
    kvm: kvm.enabled,
    vcpus: vcpus.length,
    backends: await backendsOf(client, objects, limits),
    parts: [
      ...objects.map(({ type }) => type),
      ...(await childrenOf(client, '/machine/peripheral', limits)).map(({ type }) => type),
      ...(await childrenOf(client, '/machine/peripheral-anon', limits)).map(({ type }) => type),
      ...(await networkTypes(client, limits)),
    ],
  };
}

async function backendsOf(
  client: QmpClient,
  objects: readonly { readonly name: string; readonly type: string }[],
  limits: InspectLimits,
): Promise<readonly RamBackend[]> {
  const blocks = readRamBlocks(await monitor(client, 'info ramblock', limits));
  const found: RamBackend[] = [];
  for (const memdev of await client.execute('query-memdev', {}, memdevSchema, limits)) {
    const { id = '' } = memdev;
    const block = blocks.get(id);
    // A backend that nothing uses is nobody's RAM.
    if (block === undefined) continue;
    const type = objects.find(({ name }) => name === id)?.type ?? 'memory backend of unknown type';
    const ask = <T>(what: string, schema: z.ZodType<T>): Promise<T | undefined> =>
      optionalProperty(client, `/objects/${id}`, what, schema, limits);
    const isFile = type === 'memory-backend-file';
    found.push({
      id,
      type,
      share: memdev.share ?? false,
      prealloc: memdev.prealloc,
      sizeBytes: memdev.size,
      pageSizeBytes: block.pageSizeBytes,
      path: isFile ? await ask('mem-path', z.string()) : undefined,
      // Younger than the rest of what is asked for here: without it files begin at their beginning.
      fileOffset: isFile ? ((await ask('offset', z.number())) ?? 0) : 0,
    });
  }
  return found.sort((a, b) => naturally.compare(a.id, b.id));
}

/** ram2 before ram10. */
const naturally = new Intl.Collator('en', { numeric: true });

async function childrenOf(
  client: QmpClient,
  path: string,
  limits: InspectLimits,
): Promise<readonly { readonly name: string; readonly type: string }[]> {
  const listed = await client.execute('qom-list', { path }, qomListSchema, limits);
  return listed.flatMap(({ name, type }) => {
    const child = /^child<(.+)>$/.exec(type)?.[1];
    return child === undefined ? [] : [{ name, type: child }];
  });
}

/** QMP has no list of network back ends; a vhost-user one hides behind a plain virtio-net device. */
async function networkTypes(client: QmpClient, limits: InspectLimits): Promise<readonly string[]> {
  const text = await monitor(client, 'info network', limits);
  return [...text.matchAll(/\btype=([\w-]+)/g)].map((match) => match[1] ?? '');
}

const monitor = (client: QmpClient, commandLine: string, limits: InspectLimits): Promise<string> =>
  client.execute('human-monitor-command', { 'command-line': commandLine }, z.string(), limits);

const property = <T>(
  client: QmpClient,
  path: string,
  name: string,
  schema: z.ZodType<T>,
  limits: InspectLimits,
): Promise<T> => client.execute('qom-get', { path, property: name }, schema, limits);

/** Undefined: this QEMU has no such property. */
async function optionalProperty<T>(...args: Parameters<typeof property<T>>): Promise<T | undefined> {
  try {
    return await property(...args);
  } catch (error) {
    if (error instanceof QmpRefused) return undefined;
    throw error;
  }
}
