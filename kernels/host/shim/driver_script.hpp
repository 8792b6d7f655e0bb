// What tests want of the driver beside what it does by itself: to fail, and to say what was taken.
#pragma once

using Status = int;

// Called once by each function with its name. Notes it if it takes memory, and returns what it is to fail with, or 0.
Status script(const char* function);

// Whether nothing works any more after this error.
bool is_sticky(Status status);
