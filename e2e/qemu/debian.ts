/**
 * QEMU and a guest kernel out of Debian's archive, by apt. The machine's own sources and lists stay as they are: what has to be looked up
 * anew is looked up in a private folder.
 */
import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';

/** Why it could not be done, and what a person would do. */
export class AptError extends Error {}

const QEMU_PACKAGE = 'qemu-system-x86';
const KERNEL_PACKAGE = 'linux-image-cloud-amd64';
/** Debian 12 has QEMU 7.2; its backports have 10. */
const SUITE_THAT_NEEDS_BACKPORTS = 'bookworm';
const backportsOf = (suite: string): string => `Types: deb
URIs: http://deb.debian.org/debian
Suites: ${suite}-backports
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
`;
/** Whichever Debian this is: where kernels of this year come from. */
const SUITE_OF_KERNEL_SOURCES = 'trixie';
/** What the guest's devices need and the cloud kernel has as modules. */
const MODULES = [
  ...['virtio', 'virtio_ring', 'virtio_pci_modern_dev', 'virtio_pci_legacy_dev', 'virtio_pci', 'virtio_blk'],
  ...['failover', 'net_failover', 'virtio_net', 'virtio_balloon'],
];

function run(program: string, args: readonly string[], cwd?: string): string {
  const result = spawnSync(program, args, {
    encoding: 'utf8',
    maxBuffer: 64 << 20,
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
    ...(cwd === undefined ? {} : { cwd }),
  });
  if (result.error) throw new AptError(`${program}: ${result.error.message}`);
  if (result.status === 0) return result.stdout;
  const said = result.stderr.trim().split('\n').at(-1) ?? '';
  throw new AptError(`${program} ${args.filter((a) => !a.includes('::')).join(' ')}: ${said}`);
}

function inScratch<T>(work: (folder: string) => T): T {
  const folder = mkdtempSync(join(tmpdir(), 'pagewake-apt-'));
  try {
    return work(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Options that make apt look into lists of its own: the machine's sources, and those given beside them, or these alone. */
function privateLists(folder: string, moreSources?: string, alone = false): string[] {
  const parts = join(folder, 'sources.list.d');
  for (const made of [parts, join(folder, 'lists/partial'), join(folder, 'cache/archives/partial')])
    mkdirSync(made, { recursive: true });
  const machine = '/etc/apt/sources.list.d';
  for (const name of !alone && existsSync(machine) ? readdirSync(machine) : [])
    if (/\.(list|sources)$/.test(name)) copyFileSync(join(machine, name), join(parts, name));
  if (moreSources !== undefined) writeFileSync(join(parts, 'pagewake.sources'), moreSources);
  return [
    ...(alone ? ['-o', 'Dir::Etc::sourcelist=/dev/null'] : []),
    ...['-o', `Dir::Etc::sourceparts=${parts}`, '-o', `Dir::State::lists=${join(folder, 'lists')}`],
    // A folder of root's is not readable for apt's own user, and nothing here is secret.
    ...['-o', `Dir::Cache=${join(folder, 'cache')}`, '-o', 'APT::Sandbox::User=root'],
  ];
}

function codename(): string {
  const release = existsSync('/etc/os-release') ? readFileSync('/etc/os-release', 'utf8') : '';
  return /^VERSION_CODENAME=(\w+)/m.exec(release)?.[1] ?? '';
}

export function installQemu(): void {
  const backports = codename() === SUITE_THAT_NEEDS_BACKPORTS;
  const suite = backports ? ['-t', `${SUITE_THAT_NEEDS_BACKPORTS}-backports`] : [];
  const install = ['install', '-y', '--no-install-recommends', ...suite, QEMU_PACKAGE];
  if (process.getuid?.() !== 0)
    throw new AptError(
      `QEMU is missing; as root: apt-get ${install.join(' ')}${backports ? ' (bookworm-backports has to be among the sources)' : ''}`,
    );
  inScratch((folder) => {
    const lists = privateLists(folder, backports ? backportsOf(SUITE_THAT_NEEDS_BACKPORTS) : undefined);
    run('apt-get', [...lists, 'update']);
    run('apt-get', [...lists, ...install]);
  });
}

/** The package that the name without a version stands for. */
function kernelPackage(lists: readonly string[]): string {
  const depends = run('apt-cache', [...lists, 'depends', KERNEL_PACKAGE]);
  const name = /Depends: (linux-image-\S+)/.exec(depends)?.[1];
  if (name === undefined) throw new AptError(`apt-cache knows no ${KERNEL_PACKAGE}`);
  return name;
}

function download(folder: string): void {
  const attempt = (lists: readonly string[]): void =>
    void run('apt-get', [...lists, '-o', 'APT::Sandbox::User=root', 'download', kernelPackage(lists)], folder);
  try {
    attempt([]);
  } catch {
    // The machine's lists were never fetched, or name a package that the archive has replaced since.
    const lists = privateLists(folder);
    run('apt-get', [...lists, 'update']);
    attempt(lists);
  }
}

/** Downloads Debian's cloud kernel and takes out what a guest needs. Nothing is installed. Needs no root. */
export function unpackKernel(to: string): void {
  inScratch((folder) => {
    download(folder);
    const deb = readdirSync(folder).find((name) => name.endsWith('.deb'));
    if (deb === undefined) throw new AptError('apt-get download left no package');
    run('dpkg-deb', ['-x', deb, 'unpacked'], folder);
    const unpacked = join(folder, 'unpacked');
    const files = readdirSync(unpacked, { recursive: true, encoding: 'utf8' });
    const find = (pattern: RegExp): string | undefined => files.find((file) => pattern.test(file));
    const kernel = find(/^boot\/vmlinuz-/);
    if (kernel === undefined) throw new AptError(`${deb} has no kernel`);
    // Beside its place, so that the rename is one step: whoever looks finds all of it or nothing.
    mkdirSync(dirname(to), { recursive: true });
    const made = mkdtempSync(`${to}-`);
    mkdirSync(join(made, 'modules'));
    copyFileSync(join(unpacked, kernel), join(made, 'vmlinuz'));
    writeFileSync(join(made, 'package'), `${basename(deb)}\n`);
    for (const name of MODULES) {
      const file = find(new RegExp(`/${name}\\.ko(\\.xz|\\.zst)?$`));
      // Built in, with some kernels.
      if (file === undefined) continue;
      const target = join(made, 'modules', `${name}.ko`);
      copyFileSync(join(unpacked, file), target + (/\.(xz|zst)$/.exec(file)?.[0] ?? ''));
      if (file.endsWith('.xz')) run('xz', ['-d', `${target}.xz`]);
      if (file.endsWith('.zst')) run('zstd', ['-q', '-d', '--rm', `${target}.zst`]);
    }
    rmSync(to, { recursive: true, force: true });
    renameSync(made, to);
  });
}

/** Installs packages of the machine's own suite where that is possible, else says the one command that does. */
export function installPackages(names: readonly string[]): void {
  const install = ['install', '-y', '--no-install-recommends', ...names];
  if (process.getuid?.() !== 0)
    throw new AptError(`${names.join(', ')} missing; as root: apt-get ${install.join(' ')}`);
  try {
    run('apt-get', install);
  } catch {
    // The lists are old, or were never fetched.
    run('apt-get', ['update']);
    run('apt-get', install);
  }
}

export interface KernelSource {
  /** Debian's own of the package. */
  readonly version: string;
  /** Beside its place: whoever called moves it there, in one step. */
  readonly archive: string;
}

/** Downloads one of Debian's packages `linux-source-…` and takes the archive out of it, into a folder. Nothing is installed. Needs no root. */
export function downloadKernelSource(name: string, to: string): KernelSource {
  return inScratch((folder) => {
    const lists = privateLists(folder, backportsOf(SUITE_OF_KERNEL_SOURCES), true);
    run('apt-get', [...lists, 'update']);
    run('apt-get', [...lists, 'download', name], folder);
    const deb = readdirSync(folder).find((file) => file.endsWith('.deb'));
    if (deb === undefined) throw new AptError('apt-get download left no package');
    const version = run('dpkg-deb', ['-f', deb, 'Version'], folder).trim();
    run('dpkg-deb', ['-x', deb, 'unpacked'], folder);
    const archive = join(to, `making-${process.pid}-${name}.tar.xz`);
    copyFileSync(join(folder, 'unpacked/usr/src', `${name}.tar.xz`), archive);
    return { version, archive };
  });
}
