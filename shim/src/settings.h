// What the environment says.
#pragma once

#include <stdbool.h>
#include <stddef.h>

/** Descriptors of one message that the agent takes (16), less one for the userfaultfd. */
#define MAX_RAM 15

struct Settings {
  const char *socketPath;
  /** Null where none was given. */
  const char *vm;
  /** Files, or folders that stand for every file below them; absolute paths. */
  const char *entries[MAX_RAM];
  size_t entryCount;
  /** How many mappings make the whole memory. */
  size_t ramCount;
};

/** @returns false where this process is none of ours. Ends it where the environment is half set. */
bool readSettings(struct Settings *settings);
