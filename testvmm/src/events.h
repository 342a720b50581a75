// What the program tells its caller: JSON lines on stdout, one event each, and the ways it ends.
#pragma once
#include <string>

#include "json.h"

namespace testvmm::events {

void setQuietHeartbeats(bool quiet);
/** A control socket to unlink when the program ends by itself. */
void setSocketToUnlink(const std::string &path);

/** One line, whole, whatever other threads print. */
void print(const JsonObject &event);
/** As `print`, but dropped where the reader of our stdout is slow: a full pipe must not stall a vCPU. */
void printHeartbeat(const JsonObject &event);

/** Waits a second for another thread that knows better why memory is gone to end the program. Safe in a signal handler.
 */
void waitForReason();
/** Ends the program from any thread, at once: a thread that waits for a page that will not come cannot be joined. */
[[noreturn]] void exitNow(int code);
/** A `failed` event, and the message on stderr. */
void printFailed(const std::string &reason, const std::string &message);
/** `printFailed`, then `exitNow`. */
[[noreturn]] void failNow(int code, const std::string &reason, const std::string &message);

} // namespace testvmm::events
