/** How long is waited before something counts as hung. */

/** `npm run lab` sets it: everything runs on a processor that is emulated. */
export const IN_LAB = process.env['PAGEWAKE_LAB'] === '1';
const SLOWER = IN_LAB ? 6 : 1;

export const budget = (ms: number): number => ms * SLOWER;
