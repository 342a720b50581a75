/** Where what was downloaded or found out about this machine lies: outside of the tree, so that it outlives a checkout. */
import { homedir } from 'node:os';
import { join } from 'node:path';

export const CACHE_FOLDER = join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'pagewake');
