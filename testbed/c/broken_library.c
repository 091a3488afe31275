/* A part of a library whose loading or unloading goes wrong: compiled with AT_LOAD or AT_EXIT. */
#include <stdlib.h>
#include <unistd.h>

#ifdef AT_LOAD
__attribute__((constructor)) static void at_load(void)
{
    AT_LOAD;
}
#endif

#ifdef AT_EXIT
__attribute__((destructor)) static void at_exit(void)
{
    AT_EXIT;
}
#endif
