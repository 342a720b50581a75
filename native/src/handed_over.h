// What a call has made, on its way to the object that is to keep it. A worker may be ended at any call in between, of JavaScript or of Node-API: a
// descriptor that was a mere number then would be nobody's, and open for as long as the process lives.
#pragma once

#include <napi.h>

#include <memory>
#include <utility>

namespace pagewake {

// An External for a constructor, which moves `thing` out of it: the External itself lives until it is collected, or its environment ends.
// Where JavaScript cannot run any more `thing` goes at once.
template <class T>
Napi::Value handed_over(Napi::Env env, T thing) {
  auto held = std::make_unique<T>(std::move(thing));
  const auto external = Napi::External<T>::New(env, held.get(), [](Napi::Env, T* data) { delete data; });
  if (external.IsEmpty()) return env.Undefined();
  held.release();
  return external;
}

// Whether the object that is being made is JavaScript's by now. Where the environment is being ended it never will be: nobody would let go of what it
// took, so that its constructor takes nothing.
template <class T>
bool kept_by_javascript(const Napi::ObjectWrap<T>& object) {
  return !object.IsEmpty();
}

}  // namespace pagewake
