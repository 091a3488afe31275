/* A C program that links a static library with encoders. Prints how many backends are registered
 * before and after they are linked. */
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

size_t count_backends(void);
void link_backends(void);
bool error_names_the_function(void);

int main(void)
{
    size_t before = count_backends();
    bool is_named = error_names_the_function();
    link_backends();
    size_t after = count_backends();
    link_backends();
    printf("%zu %zu %zu %d\n", before, after, count_backends(), is_named);
    return 0;
}
