// Where the headers of the Node that runs the addon are. They ship inside the npm package `node`, in a nested package
// that its install script puts there behind npm's back: the next `npm install` prunes it and leaves only the binary. So they are
// kept aside when seen, and fetched again through npm when not. Plain JavaScript that Node 20 runs as well.
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

const MARK = 'include/node/node_api.h';

/**
 * @param {NodeRequire} require of a package of this workspace
 * @returns {{ binary: string, headers: string }} `headers` is what node-gyp calls the nodedir
 * @throws Error with what to do
 */
export function findNode(require) {
  let packagePath;
  try {
    packagePath = dirname(require.resolve('node/package.json'));
  } catch {
    throw new Error('the npm package "node" is not installed: run `npm install`');
  }
  const { version } = JSON.parse(readFileSync(join(packagePath, 'package.json'), 'utf8'));
  const name = `node-linux-${process.arch}`;
  const modules = dirname(packagePath);
  const kept = join(modules, '.cache/pagewake', `${name}-${version}`);
  if (!existsSync(join(kept, MARK))) {
    const shipped = [join(packagePath, 'node_modules', name), join(modules, name)].find((place) =>
      existsSync(join(place, MARK)),
    );
    if (shipped !== undefined) keep(shipped, kept);
    else fetchHeaders(`${name}@${version}`, kept);
  }
  return { binary: join(packagePath, 'bin/node'), headers: kept };
}

function keep(from, kept) {
  mkdirSync(dirname(kept), { recursive: true });
  const fresh = mkdtempSync(`${kept}-`);
  cpSync(join(from, 'include'), join(fresh, 'include'), { recursive: true });
  rmSync(kept, { recursive: true, force: true });
  renameSync(fresh, kept);
}

function fetchHeaders(spec, kept) {
  const folder = mkdtempSync(join(tmpdir(), 'pagewake-headers-'));
  try {
    const pack = spawnSync('npm', ['pack', spec, '--silent', '--pack-destination', folder], { encoding: 'utf8' });
    const archive = readdirSync(folder).find((file) => file.endsWith('.tgz'));
    if (pack.status !== 0 || archive === undefined) {
      throw new Error(`the headers of Node (${spec}) could not be fetched: run \`npm install\` again\n${pack.stderr}`);
    }
    const unpack = spawnSync('tar', ['-xzf', join(folder, archive), '-C', folder, 'package/include'], {
      encoding: 'utf8',
    });
    if (unpack.status !== 0) throw new Error(`${spec} has no headers in it: ${unpack.stderr}`);
    keep(join(folder, 'package'), kept);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
