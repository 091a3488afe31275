/* A C program that links a static library with encoders, and prints how many are registered. */
#include <stddef.h>
#include <stdio.h>

size_t count_backends(void);

int main(void)
{
    printf("%zu\n", count_backends());
    return 0;
}
