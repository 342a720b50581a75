/** All sections, in the order in which they run. */
import { section as bulk } from '../bulk/section.ts';
import { section as growth } from '../growth/section.ts';
import { section as guest } from '../guest/section.ts';
import { section as many } from '../many/section.ts';
import { section as populate } from '../populate/section.ts';
import { section as stalls } from '../stalls/section.ts';
import type { Section } from './section.ts';

export const SECTIONS: readonly Section[] = [stalls, bulk, populate, growth, many, guest];
