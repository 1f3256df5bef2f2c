/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "command/state.h"

/* Devices and commands that nobody runs: only their turn is looked at. */
static struct core core;
static struct device devices[4];
static struct command commands[4][16];

static void reset(unsigned nr_workers)
{
    run_queue_init(&core.queue, nr_workers);
    for (int i = 0; i < 4; i++) {
        devices[i].core = &core;
        atomic_init(&devices[i].nr_references, 1);
        device_queue_init(&devices[i].queue);
        for (int j = 0; j < 16; j++) {
            commands[i][j].device = &devices[i];
            list_init(&commands[i][j].link);
        }
    }
}

static void append(int device, int nr)
{
    for (int j = 0; j < nr; j++)
        run_queue_append(&commands[device][j]);
}

/* The next command is that device's number-th; its worker is occupied from then on. */
static void expect(int device, int number)
{
    CHECK(run_queue_next(&core.queue) == &commands[device][number]);
}

static void ran(int device)
{
    run_queue_ran(&core.queue, &devices[device]);
}

/* What a worker is told that looks when nothing may run. */
static void expect_nothing(void)
{
    core.queue.is_closed = true;
    CHECK(run_queue_next(&core.queue) == NULL);
    core.queue.is_closed = false;
}

TEST(test_run_queue_serves_devices_in_turn)
{
    reset(16);
    append(0, 3);
    append(1, 1);
    append(2, 2);
    expect(0, 0);
    expect(1, 0);
    expect(2, 0);
    expect(0, 1);
    expect(2, 1);
    expect(0, 2);
    expect_nothing();
}

TEST(test_run_queue_gives_a_device_no_more_workers_than_it_leaves)
{
    reset(8);
    append(0, 16);
    for (int i = 0; i < 4; i++)
        expect(0, i);
    expect_nothing();
    append(1, 16); /* four are left: half of these */
    expect(1, 0);
    expect(1, 1);
    expect_nothing();
    append(2, 1);
    expect(2, 0);
    append(3, 1); /* and still one for the next */
    expect(3, 0);
    expect_nothing();
}

TEST(test_run_queue_goes_on_when_a_worker_is_free_again)
{
    reset(2);
    append(0, 2);
    expect(0, 0);
    expect_nothing();
    ran(0);
    expect(0, 1);
    ran(0);
    CHECK(core.queue.nr_free == 2 && devices[0].queue.nr_running == 0);
}

TEST(test_run_queue_one_worker_serves_all)
{
    reset(1);
    append(0, 2);
    append(1, 1);
    expect(0, 0);
    expect_nothing();
    ran(0);
    expect(1, 0);
    ran(1);
    expect(0, 1);
    ran(0);
}

TEST(test_run_queue_forgets_a_command_that_is_taken_out)
{
    reset(8);
    append(0, 3);
    append(1, 1);
    CHECK(run_queue_remove(&commands[0][0]));
    CHECK(run_queue_remove(&commands[1][0]));
    CHECK(!run_queue_remove(&commands[1][0]));
    expect(0, 1);
    CHECK(!run_queue_remove(&commands[0][1])); /* a worker has it */
    expect(0, 2);
    expect_nothing();
    CHECK(list_is_empty(&core.queue.devices));
}

TEST_MAIN(T(test_run_queue_serves_devices_in_turn), T(test_run_queue_gives_a_device_no_more_workers_than_it_leaves),
          T(test_run_queue_goes_on_when_a_worker_is_free_again), T(test_run_queue_one_worker_serves_all),
          T(test_run_queue_forgets_a_command_that_is_taken_out))
