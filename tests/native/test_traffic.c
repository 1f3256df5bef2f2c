/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "cache/traffic.h"

TEST(test_traffic_has_one_row_for_a_host_whatever_its_scheme)
{
    struct traffic traffic;
    traffic_init(&traffic);
    struct obd_host_traffic *row = traffic_of(&traffic, "https://registry.example:5000");
    CHECK(strcmp(row->host, "registry.example:5000") == 0);
    CHECK(traffic_of(&traffic, "http://registry.example:5000") == row);
    CHECK(traffic_of(&traffic, "https://other.example:443") != row && traffic.nr_hosts == 3);
}

TEST(test_traffic_of_ever_new_hosts_ends_in_one_row)
{
    struct traffic traffic;
    char authority[64];
    traffic_init(&traffic);
    for (int i = 0; i < MAX_TRAFFIC_HOSTS; i++) {
        snprintf(authority, sizeof authority, "https://host%d:443", i);
        CHECK(traffic_of(&traffic, authority) == &traffic.hosts[i + 1]);
    }
    CHECK(traffic_of(&traffic, "https://one-more:443") == &traffic.hosts[0]);
    CHECK(traffic_of(&traffic, "https://host3:443") == &traffic.hosts[4]); /* those it has stay apart */
    CHECK(traffic.nr_hosts == MAX_TRAFFIC_HOSTS + 1);
}

TEST(test_traffic_of_a_name_without_end_is_everybody_s)
{
    struct traffic traffic;
    char authority[600] = "https://";
    traffic_init(&traffic);
    memset(authority + 8, 'a', sizeof authority - 9);
    authority[sizeof authority - 1] = '\0';
    CHECK(traffic_of(&traffic, authority) == &traffic.hosts[0] && traffic.nr_hosts == 1);
    CHECK(traffic_of(&traffic, "") == &traffic.hosts[0]);
}

TEST_MAIN(T(test_traffic_has_one_row_for_a_host_whatever_its_scheme), T(test_traffic_of_ever_new_hosts_ends_in_one_row),
          T(test_traffic_of_a_name_without_end_is_everybody_s))
