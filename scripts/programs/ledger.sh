#!/bin/bash
# PostgreSQL under a small load, as the user postgres: transfers between accounts, each with a line in a ledger. Run under
# `revenant run --user postgres`. At the end the database is checked (pg_amcheck), and its own account of itself.
#
#   ledger.sh RESULT   writes one line to RESULT
set -euo pipefail
export PATH=/usr/lib/postgresql/15/bin:$PATH PGDATA=/tmp/pgdata PGHOST=/tmp PGDATABASE=postgres
transfers=1500

initdb --auth=trust --no-instructions >/dev/null
postgres -c listen_addresses= -c unix_socket_directories=/tmp -c autovacuum_naptime=1s -c checkpoint_timeout=30s >/tmp/pg.log 2>&1 &
server=$!
until pg_isready -q; do sleep 0.1; done
psql -qX <<'SQL'
CREATE EXTENSION amcheck;
CREATE TABLE account (number int PRIMARY KEY, balance bigint NOT NULL);
CREATE TABLE ledger (client int, step int, source int, target int, amount int, PRIMARY KEY (client, step));
INSERT INTO account SELECT n, 1000 FROM generate_series(1, 500) AS n;
SQL

# One session each for its whole life: it must survive every container.
client() {
    for step in $(seq "$transfers"); do
        source=$(((step * 7919 + $1 * 31) % 500 + 1)) target=$(((step * 104729 + $1 * 17) % 500 + 1))
        echo "BEGIN; UPDATE account SET balance = balance - ($step % 13) WHERE number = LEAST($source, $target);
            UPDATE account SET balance = balance + ($step % 13) WHERE number = GREATEST($source, $target);
            INSERT INTO ledger VALUES ($1, $step, LEAST($source, $target), GREATEST($source, $target), $step % 13); COMMIT;"
        sleep 0.005
    done | psql -qX -v ON_ERROR_STOP=1
}
client 1 & one=$!
client 2 & two=$!
client 3 & three=$!
wait "$one"; wait "$two"; wait "$three"

pg_amcheck --heapallindexed --parent-check
psql -qXAt >"$1" <<'SQL'
SELECT count(*), sum(amount), md5(string_agg(client || ',' || step || ',' || source || ',' || target || ',' || amount, ';'
    ORDER BY client, step)) FROM ledger;
SELECT sum(balance), md5(string_agg(number || ':' || balance, ';' ORDER BY number)) FROM account;
SELECT count(*) AS wrong FROM account LEFT JOIN (
    SELECT number, sum(change) AS change FROM (
        SELECT source AS number, -amount AS change FROM ledger UNION ALL SELECT target, amount FROM ledger) AS moves
    GROUP BY number) AS moved USING (number) WHERE balance <> 1000 + coalesce(change, 0);
SQL
kill -INT "$server"
wait "$server" || true
