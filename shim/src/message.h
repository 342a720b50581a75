// What an agent says: one JSON object a line (docs/protocol.md).
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum AnswerType { ANSWER_OTHER, ANSWER_HELD, ANSWER_READY, ANSWER_DONE, ANSWER_FAILED };

struct Answer {
  enum AnswerType type;
  char reason[64];
  char message[2048];
  /** Of `failed`: nothing was delivered, the memory may be handed over anew. */
  bool again;
};

/** @returns false where the line is no JSON object with a `type`; fields that are not known are passed over */
bool readAnswer(const char *line, size_t length, struct Answer *answer);
