// Where compiled code and stripped types are kept between two starts, so that an agent and its lanes need not compile what the last one did. What lies
// there is run without a question, so it has to be a folder in which nobody else can put anything. Plain JavaScript, as it comes before everything else.
import { accessSync, chmodSync, constants, existsSync, mkdirSync, realpathSync, statSync } from 'node:fs';
import nodeModule from 'node:module';
import { homedir } from 'node:os';
import { dirname, isAbsolute, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const WRITABLE_BY_OTHERS = 0o022;
const STICKY = 0o1000;
const ROOT_UID = 0;

/**
 * To be called before what it is for is loaded. Who has said something about Node's own cache is left alone.
 * @param {string} role which program this is: another one runs other functions of the same files, and who comes first decides which are kept compiled
 */
export function useCompileCache(role) {
  if (isDecided(process.env)) return;
  const folder = compileCacheFolder();
  if (folder === undefined) return;
  nodeModule.enableCompileCache(join(folder, role));
  // A worker asks the environment alone.
  process.env.NODE_COMPILE_CACHE = join(folder, `${role}-workers`);
}

/** @param {NodeJS.ProcessEnv} env */
export const isDecided = (env) => env.NODE_COMPILE_CACHE !== undefined || env.NODE_DISABLE_COMPILE_CACHE !== undefined;

/**
 * Beside the packages where they are ours, else in this user's cache.
 * @returns {string | undefined} a folder that is there and safe; undefined: there is none
 */
export function compileCacheFolder() {
  const beside = [join(ROOT, 'node_modules'), '.cache', 'pagewake', 'compiled'];
  const folder = [beside, ownCache()].map((steps) => made(steps)).find((path) => path !== undefined && isSafe(path));
  // Node makes what is in there as the umask says, which may be for all to write to: nobody else gets there.
  if (folder !== undefined) chmodSync(folder, 0o700);
  return folder;
}

/** @returns {string[]} a folder that is there, and what is to be made in it */
function ownCache() {
  const xdg = process.env.XDG_CACHE_HOME;
  return xdg !== undefined && isAbsolute(xdg)
    ? [xdg, 'pagewake', 'compiled']
    : [homedir(), '.cache', 'pagewake', 'compiled'];
}

/**
 * Step by step: Node's recursive mkdir never comes back where a file system refuses new folders (/proc).
 * @param {string[]} steps
 * @returns {string | undefined} the folder; undefined: it cannot be written
 */
function made([base = '', ...names]) {
  try {
    let path = base;
    for (const name of names) {
      path = join(path, name);
      if (!existsSync(path)) mkdirSync(path, { mode: 0o755 });
    }
    accessSync(path, constants.R_OK | constants.W_OK | constants.X_OK);
    return path;
  } catch {
    return undefined;
  }
}

/**
 * Nobody but this user and root can put a file there, nor another folder in its place.
 * @param {string} path
 */
export function isSafe(path) {
  try {
    let folder = realpathSync(path);
    for (let sticky = false; ; sticky = true, folder = dirname(folder)) {
      const { uid, mode } = statSync(folder);
      if (uid !== ROOT_UID && uid !== process.geteuid?.()) return false;
      // In a sticky folder (/tmp) others may add something, and cannot take away what is ours.
      if ((mode & WRITABLE_BY_OTHERS) !== 0 && !(sticky && (mode & STICKY) !== 0)) return false;
      if (folder === dirname(folder)) return true;
    }
  } catch {
    return false;
  }
}
