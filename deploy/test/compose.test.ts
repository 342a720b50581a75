/** docker-compose.yml: accepted by the program, and what it promises about capabilities, users, versions and traces. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { lastOf, readDockerfile } from './dockerfile.ts';

const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const AGENTS = ['source-agent', 'dest-agent'] as const;
const PROGRAM = 'docker-compose';

interface Service {
  readonly image: string;
  readonly build?: { readonly context: string; readonly dockerfile: string };
  readonly command?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly cap_add?: readonly string[];
  readonly cap_drop?: readonly string[];
  readonly security_opt?: readonly string[];
  readonly user?: string;
  readonly pid?: string;
  readonly privileged?: boolean;
  readonly read_only?: boolean;
  readonly restart?: string;
  readonly ports?: readonly string[];
  readonly volumes?: readonly string[];
  readonly networks?: Readonly<Record<string, unknown>>;
}

interface Compose {
  readonly services: Readonly<Record<string, Service>>;
}

interface Collector {
  readonly receivers: { readonly otlp: { readonly protocols: { readonly grpc: { readonly endpoint: string } } } };
  readonly exporters: Readonly<Record<string, { readonly endpoint: string }>>;
  readonly service: { readonly pipelines: { readonly traces: Readonly<Record<'receivers' | 'exporters', string[]>> } };
}

function compose(...args: string[]) {
  return spawnSync(PROGRAM, ['--file', join(ROOT, 'docker-compose.yml'), ...args], { encoding: 'utf8' });
}

/** docker-compose is a Python program, so where it is, this parser is too. */
function parseYaml(text: string): unknown {
  const script = 'import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)';
  const result = spawnSync('/usr/bin/python3', ['-c', script], { encoding: 'utf8', input: text });
  assert.equal(result.status, 0, result.stderr);
  return JSON.parse(result.stdout);
}

const version = spawnSync(PROGRAM, ['version', '--short'], { encoding: 'utf8' });
const skip = version.status === 0 ? false : `${PROGRAM} is not installed (Debian package docker-compose)`;

/** As docker-compose itself understands the file: variables filled in, anchors merged. */
const config = skip === false ? (parseYaml(compose('config').stdout) as Compose) : { services: {} };

function service(name: string): Service {
  const found = config.services[name];
  assert.ok(found, `there is no service ${name}`);
  return found;
}

test('docker-compose accepts the file', { skip }, () => {
  const { status, stderr } = compose('config', '--quiet');
  assert.equal(status, 0, stderr);
  assert.equal(stderr, '');
});

test('both agents, a collector and Jaeger are there', { skip }, () => {
  assert.deepEqual(Object.keys(config.services).toSorted(), ['dest-agent', 'jaeger', 'otel-collector', 'source-agent']);
});

test('each agent is built from its own Dockerfile, which exists', { skip }, () => {
  for (const name of AGENTS) {
    const dockerfile = service(name).build?.dockerfile;
    assert.equal(dockerfile, `deploy/${name}.Dockerfile`);
    assert.ok(existsSync(join(ROOT, dockerfile)));
  }
});

test('no image floats: each has a whole version', { skip }, () => {
  for (const [name, { image }] of Object.entries(config.services)) assert.match(image, /:\d+\.\d+\.\d+$/, name);
});

test('nobody is privileged, everybody drops all capabilities, and only the source gets two back', { skip }, () => {
  for (const [name, { privileged, cap_drop, cap_add }] of Object.entries(config.services)) {
    assert.notEqual(privileged, true, name);
    assert.deepEqual(cap_drop, ['ALL'], name);
    assert.deepEqual(cap_add ?? [], name === 'source-agent' ? ['SYS_PTRACE', 'DAC_READ_SEARCH'] : [], name);
  }
});

test('the capabilities that the source gets are those of the file in its image', { skip }, () => {
  const run = lastOf(
    readDockerfile(join(ROOT, 'deploy/source-agent.Dockerfile')).stages.at(-1) ?? assert.fail(),
    'RUN',
  );
  const names = /setcap (\S+)=ep/.exec(run ?? '')?.[1]?.split(',') ?? [];
  assert.deepEqual(
    names.map((name) => name.replace(/^cap_/, '').toUpperCase()),
    service('source-agent').cap_add,
  );
  // With it the kernel ignores capabilities of files.
  assert.ok(!service('source-agent').security_opt?.some((option) => option.startsWith('no-new-privileges')));
  assert.ok(service('dest-agent').security_opt?.includes('no-new-privileges:true'));
});

test('nobody runs as root', { skip }, () => {
  for (const [name, { user, build }] of Object.entries(config.services)) {
    const final = build && readDockerfile(join(ROOT, build.dockerfile)).stages.at(-1);
    const effective = user ?? (final && lastOf(final, 'USER'));
    assert.match(effective ?? '', /^[1-9]\d*(:[1-9]\d*)?$/, name);
  }
});

test('both agents see the pids of the host, which orchestrators and VMMs name', { skip }, () => {
  for (const name of AGENTS) assert.equal(service(name).pid, 'host');
});

test('a socket has one path inside and outside', { skip }, () => {
  const { volumes, environment } = service('dest-agent');
  const folder = environment?.['PAGEWAKE_VMM_SOCKET_DIR'];
  assert.ok(volumes?.includes(`${folder}:${folder}:rw`), JSON.stringify(volumes));
});

test('what an agent keeps lies on the host, in a folder of its own that lives as long as a boot', { skip }, () => {
  const folders = AGENTS.map((name) => {
    const { volumes, environment, read_only } = service(name);
    const folder = environment?.['PAGEWAKE_STATE_DIR'] ?? '';
    assert.match(folder, /^\/run\/[^/]+$/, name);
    assert.ok(volumes?.includes(`${folder}:${folder}:rw`), JSON.stringify(volumes));
    assert.equal(read_only, true, 'a folder that is not mounted cannot be written by mistake');
    return folder;
  });
  assert.equal(new Set([...folders, service('dest-agent').environment?.['PAGEWAKE_VMM_SOCKET_DIR']]).size, 3);
});

test('the ports of the source are fixed, those that its image says, and the same outside', { skip }, () => {
  const { environment = {}, ports } = service('source-agent');
  const inside = ['PAGEWAKE_LISTEN', 'PAGEWAKE_FAULT_PORT', 'PAGEWAKE_BULK_PORT'].map((name) =>
    environment[name]?.replace(/^.*:/, ''),
  );
  assert.deepEqual(
    ports,
    inside.map((port) => `127.0.0.1:${port}:${port}/tcp`),
  );
  const image = readDockerfile(join(ROOT, 'deploy/source-agent.Dockerfile')).stages.at(-1) ?? assert.fail();
  assert.equal(lastOf(image, 'EXPOSE'), inside.join(' '));
  assert.match(lastOf(image, 'ENV') ?? '', new RegExp(`FAULT_PORT=${inside[1]} PAGEWAKE_BULK_PORT=${inside[2]} `));
});

test('an agent that ended is started again, as it knows what it was at', { skip }, () => {
  for (const name of AGENTS) assert.equal(service(name).restart, 'unless-stopped');
});

test('plaintext is asked for by name, and published on loopback alone', { skip }, () => {
  for (const name of AGENTS) assert.deepEqual(service(name).command, ['--insecure-plaintext']);
  for (const [name, { ports }] of Object.entries(config.services))
    for (const port of ports ?? []) assert.match(port, /^127\.0\.0\.1:/, name);
});

test('spans go from both agents to the collector, and from there to Jaeger', { skip }, () => {
  const collector = parseYaml(readFileSync(join(ROOT, 'deploy/otel-collector.yaml'), 'utf8')) as Collector;
  for (const name of AGENTS) {
    const { environment, networks } = service(name);
    assert.equal(environment?.['OTEL_EXPORTER_OTLP_PROTOCOL'], 'grpc');
    const endpoint = new URL(environment['OTEL_EXPORTER_OTLP_ENDPOINT'] ?? '');
    assert.ok(config.services[endpoint.hostname], endpoint.hostname);
    assert.equal(endpoint.port, collector.receivers.otlp.protocols.grpc.endpoint.split(':')[1]);
    assert.ok('telemetry' in (networks ?? {}));
  }
  const { receivers, exporters } = collector.service.pipelines.traces;
  assert.deepEqual(receivers, ['otlp']);
  assert.deepEqual(
    exporters.map((name) => collector.exporters[name]?.endpoint),
    ['jaeger:4317'],
  );
  const mounted = service('otel-collector').volumes?.map((volume) => volume.split(':'));
  assert.ok(mounted?.some(([from]) => from === join(ROOT, 'deploy/otel-collector.yaml')));
});
