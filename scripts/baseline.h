// Included before every source of a wheel (scripts/wheels.py), so that the library loads on the older systems that the
// wheel's name promises. `auditwheel` tells which symbols ask for newer ones; each of them needs a line here.
#if defined(__x86_64__)
#define GLIBC_BASE "GLIBC_2.2.5"
#elif defined(__aarch64__)
#define GLIBC_BASE "GLIBC_2.17"
#endif
#define WAIT "_ZNSt18condition_variable4waitERSt11unique_lockISt5mutexE"  // std::condition_variable::wait

// What exists in an old and in a new version: the old one.
__asm__(".symver pthread_mutex_trylock,pthread_mutex_trylock@" GLIBC_BASE);
__asm__(".symver pow,pow@" GLIBC_BASE);
__asm__(".symver " WAIT "," WAIT "@GLIBCXX_3.4.11");

// What is new: what older libraries did in its place.
namespace std {
[[noreturn]] void __throw_bad_alloc();
[[noreturn]] __attribute__((weak, visibility("hidden"))) void __throw_bad_array_new_length() { __throw_bad_alloc(); }
}  // namespace std

#undef WAIT
#undef GLIBC_BASE
