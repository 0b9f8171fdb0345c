# Lectern: one non-recursive Makefile. `make help` lists the targets.
#
# Output goes to build/<variant>/; variants: release (default), debug, asan, tsan, cov, fuzz.
# V=1 shows commands. BUILD=DIR builds elsewhere. Sources are found by wildcard: a new file needs no
# line here.

VARIANT ?= release
BUILD   ?= build
V       ?= 0
B       := $(BUILD)/$(VARIANT)
Q       := $(if $(filter 1,$(V)),,@)
PREFIX  ?= /usr/local
LIBDIR  ?= $(PREFIX)/lib
DESTDIR ?=
comma   := ,

# The library's version is the header's; its first number is the interface's (soname).
VERSION := $(shell sed -n 's/^.define LECTERN_VERSION_NUMBER \([0-9]*\).*/\1/p' client/lectern.h | \
             awk '{ printf "%d.%d.%d", $$1 / 1000000, $$1 / 1000 % 1000, $$1 % 1000 }')
SONAME  := liblectern.so.$(firstword $(subst ., ,$(VERSION)))

# All processors, unless the caller gave -j.
ifeq ($(MAKELEVEL)$(findstring -j,$(MAKEFLAGS)),0)
MAKEFLAGS += -j$(shell nproc 2>/dev/null || echo 2)
endif

# The commands are expanded when the first object is compiled, that is after `deps`: a fresh machine
# has no pkg-config when this file is read.
PKGS := sqlite3 raft libuv liblz4 libxxhash yajl libcrypto libpcre2-8
PKG_CFLAGS = $(eval PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS)))$(PKG_CFLAGS)
RAFT_WANTED := 0.22.1
# Debian has llhttp as C sources only (node-llhttp): compiled here, without our warnings.
LLHTTP_SOURCES := /usr/share/llhttp
LLHTTP_INCLUDE := /usr/share/include

WARN := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wcast-qual -Wstrict-prototypes \
        -Wmissing-prototypes -Wundef -Wvla -Wformat=2 -Wswitch-enum -Wimplicit-fallthrough
ifneq ($(findstring clang,$(CC)),)
WARN += -Wthread-safety -Wassign-enum
endif
SANITIZE_ASAN := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
CFLAGS_release := -O2 -g
CFLAGS_debug   := -Og -g -Werror
# gcc warns of some things only when it optimizes; clang is no wiser then, and three times as slow.
CFLAGS_lint    := $(if $(findstring clang,$(CC)),-O0,-O2) -Werror
CFLAGS_asan    := -O1 -g $(SANITIZE_ASAN)
CFLAGS_tsan    := -O1 -g -fsanitize=thread -fno-omit-frame-pointer
CFLAGS_cov     := -O0 -g --coverage
CFLAGS_fuzz    := -O1 -g -fsanitize=fuzzer-no-link $(SANITIZE_ASAN)
LDFLAGS_cov    := --coverage
LDFLAGS_fuzz   := -fsanitize=fuzzer
CFLAGS_ALL = -std=c11 -D_GNU_SOURCE -I. $(WARN) $(CFLAGS_$(VARIANT)) $(PKG_CFLAGS) \
             -fstack-protector-strong $(CFLAGS)
LDFLAGS_ALL = $(filter -fsanitize=address% -fsanitize=thread,$(CFLAGS_$(VARIANT))) \
              $(LDFLAGS_$(VARIANT)) $(LDFLAGS)
LIBS_server := -lraft -lsqlite3 -luv -llz4 -linih -lyajl -lprotobuf-nanopb -lwslay -lcrypto \
               -lpcre2-8 -lz -lm -lpthread
LIBS_client := -ledit -lsqlite3 -lpthread

src  = $(wildcard $(1)/*.c)
objs = $(patsubst %.c,$(B)/%.o,$(1))

# client/ holds the library (no prefix) and the shell (shell*.c); node/main.c is the server's entry.
SHELL_SRC  := $(wildcard client/shell*.c)
# Dumps as text, the shell's and the server's: they need sqlite3, so the library has them not.
DUMP_SRC   := client/sql_dump.c client/sql_literal.c
CLIENT_SRC := $(filter-out $(SHELL_SRC) $(DUMP_SRC),$(call src,client))
# liblectern: the library's own part of base/ and no more. It has no log, and
# base/mem.h aborts where a library must say NOMEM.
LIBRARY_SRC  := $(CLIENT_SRC) \
                $(patsubst %,base/%.c,buf check clock err file hash page_hash thread trace)
LIBRARY_OBJS := $(patsubst %.c,$(B)/lib/%.o,$(LIBRARY_SRC))
# Sanitizers and coverage leave references that only a program's link resolves.
LIBRARY_DEFS := $(if $(filter release debug,$(VARIANT)),-Wl$(comma)-z$(comma)defs)
# Programs that see nothing of Lectern but the installed header and the library.
PROGRAM_SRC  := $(wildcard tests/programs/*.c docs/examples/*.c)
PROGRAM_BINS := $(patsubst %.c,$(B)/programs/%,$(notdir $(PROGRAM_SRC)))
PROGRAM_OBJS := $(call objs,$(PROGRAM_SRC))
NODE_SRC   := $(filter-out node/main.c,$(call src,node)) $(call src,node/http)
BASE_OBJS   := $(call objs,$(call src,base))
# As an archive: the server takes the frames from it and leaves the library alone.
CLIENT_LIB  := $(B)/client.a
CLIENT_OBJS := $(BASE_OBJS) $(CLIENT_LIB)
# The shell is a program on the library. What it shares with the library's inside, it has a copy of:
# only lectern_* leaves liblectern.a.
SHELL_OBJS  := $(BASE_OBJS) $(call objs,$(SHELL_SRC) $(DUMP_SRC) client/sql_split.c) \
               $(B)/liblectern.a
ROOM_OBJS_base        := $(BASE_OBJS)
ROOM_OBJS_client      := $(CLIENT_OBJS) $(call objs,$(DUMP_SRC))
ROOM_OBJS_replication := $(BASE_OBJS) $(call objs,$(call src,replication))
ROOM_OBJS_consensus   := $(BASE_OBJS) $(call objs,$(call src,consensus))
LLHTTP_OBJS := $(patsubst %,$(B)/llhttp/%.o,api http llhttp)
LIB_OBJS := $(sort $(CLIENT_OBJS) $(ROOM_OBJS_replication) $(ROOM_OBJS_consensus) \
              $(call objs,$(DUMP_SRC) $(NODE_SRC)) $(LLHTTP_OBJS))
ROOM_OBJS_node        := $(LIB_OBJS)
ROOM_OBJS_http        := $(LIB_OBJS)
TESTLIB_OBJS := $(call objs,$(call src,tests/lib))
BENCH_OBJS   := $(CLIENT_OBJS) $(call objs,$(call src,tests/bench))
# tests/sim/ is a library for consensus/'s unit tests too; main.c is the program on it.
SIM_MAIN     := $(wildcard tests/sim/main.c)
SIM_SRC      := $(filter-out $(SIM_MAIN),$(call src,tests/sim))
FUZZ_SRC     := $(wildcard tests/fuzz/*_fuzz.c)
FUZZ_BINS    := $(patsubst tests/fuzz/%_fuzz.c,$(B)/fuzz/%,$(FUZZ_SRC))
UNIT_ROOMS   := $(sort $(patsubst tests/unit/%/,%,$(dir $(wildcard tests/unit/*/*_test.c))))
UNIT_BINS    := $(patsubst %,$(B)/tests/check-%,$(UNIT_ROOMS))
UNIT_OBJS    := $(call objs,$(foreach r,$(UNIT_ROOMS),$(wildcard tests/unit/$(r)/*.c)))
ALL_OBJS     := $(sort $(filter %.o,$(LIB_OBJS) $(SHELL_OBJS)) \
                  $(call objs,$(CLIENT_SRC) $(wildcard node/main.c)) \
                  $(TESTLIB_OBJS) $(UNIT_OBJS) $(filter %.o,$(BENCH_OBJS)) \
                  $(call objs,$(call src,tests/bench/storage) $(call src,tests/bench/library)) \
                  $(call objs,$(SIM_SRC) $(SIM_MAIN) $(FUZZ_SRC)) $(PROGRAM_OBJS))

.DEFAULT_GOAL := all
.SECONDARY:
.DELETE_ON_ERROR:

# --- for users ------------------------------------------------------------------------------------

.PHONY: all run demo install clean help deps
all: $(B)/lecternd $(B)/lectern library ## build the server, the shell and the library

run: all ## start three nodes and open the SQL shell (or run SQL from standard input)
	@exec deploy/local-cluster --build $(B)

demo: all ## watch a failover in a minute
	@exec deploy/demo --build $(B)

install: all ## install into $(DESTDIR)$(PREFIX)
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(B)/lecternd $(B)/lectern $(DESTDIR)$(PREFIX)/bin
	install -D -m 644 client/lectern.h $(DESTDIR)$(PREFIX)/include/lectern.h
	install -D -m 644 $(B)/liblectern.a $(DESTDIR)$(LIBDIR)/liblectern.a
	install -m 755 $(B)/liblectern.so.$(VERSION) $(DESTDIR)$(LIBDIR)
	ln -sf liblectern.so.$(VERSION) $(DESTDIR)$(LIBDIR)/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/liblectern.so
	install -d $(DESTDIR)$(LIBDIR)/pkgconfig
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@VERSION@|$(VERSION)|' \
	    deploy/liblectern.pc.in >$(DESTDIR)$(LIBDIR)/pkgconfig/lectern.pc
	$(Q)for page in $(wildcard docs/man/*.[1-8]); do \
	    install -D -m 644 $$page $(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page##*/}; done

clean: ## remove what was built (run/ with the local cluster's data stays)
	rm -rf $(BUILD)

help: ## list the targets
	@grep -hE '^[a-z][a-z-]*:.*##' $(firstword $(MAKEFILE_LIST)) | sed 's/:.*## /\t/' | expand -t 16

# Installs what is missing; silent and quick when all is there.
deps:
	@deploy/install-deps.sh
	@pkg-config --atleast-version=$(RAFT_WANTED) raft || { echo "libraft is \
	    `pkg-config --modversion raft`: Lectern needs $(RAFT_WANTED) or newer, older ones can lose \
	    agreement; deploy/install-deps.sh says where to get it." >&2; exit 1; }

# --- what is built --------------------------------------------------------------------------------

# What a program is linked from: archives after the objects that need them.
LINKED = $(filter-out %.a,$^) $(filter %.a,$^)

$(CLIENT_LIB): $(call objs,$(CLIENT_SRC))
	$(Q)rm -f $@ && ar rcsD $@ $^

$(B)/lecternd: $(B)/node/main.o $(LIB_OBJS)
	@echo "  LD  $@" >&2
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $(LINKED) $(LIBS_server)

$(B)/lectern: $(SHELL_OBJS)
	@echo "  LD  $@" >&2
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $(LINKED) $(LIBS_client)

# One object in which only lectern_* is global: nothing else can clash with a program's own names.
$(B)/liblectern.a: $(LIBRARY_OBJS)
	@echo "  AR  $@" >&2
	$(Q)ld -r -o $(B)/lib/lectern.o $^
	$(Q)objcopy --localize-hidden $(B)/lib/lectern.o
	$(Q)rm -f $@ && ar rcsD $@ $(B)/lib/lectern.o

$(B)/liblectern.so.$(VERSION): $(LIBRARY_OBJS)
	@echo "  LD  $@" >&2
	$(Q)$(CC) $(LDFLAGS_ALL) -shared -Wl,-soname,$(SONAME) $(LIBRARY_DEFS) -o $@ $^
	$(Q)ln -sf $(@F) $(B)/$(SONAME) && ln -sf $(SONAME) $(B)/liblectern.so

$(B)/lib/%.o: %.c $(B)/.flags | deps
	@mkdir -p $(@D)
	@echo "  CC  $< (library)" >&2
	$(Q)$(CC) $(CFLAGS_ALL) -fPIC -fvisibility=hidden -MMD -MP -c -o $@ $<

.PHONY: library programs
library: $(B)/liblectern.a $(B)/liblectern.so.$(VERSION)
programs: $(PROGRAM_BINS)

$(B)/include/lectern.h: client/lectern.h
	@mkdir -p $(@D)
	$(Q)cp $< $@

$(PROGRAM_OBJS): private CFLAGS_ALL += -I$(B)/include
$(PROGRAM_OBJS): $(B)/include/lectern.h
define program_rule
$$(B)/programs/$$(basename $$(notdir $(1))): $$(call objs,$(1)) $$(B)/liblectern.a
	@mkdir -p $$(@D)
	@echo "  LD  $$@" >&2
	$$(Q)$$(CC) $$(LDFLAGS_ALL) -o $$@ $$(LINKED)
endef
$(foreach p,$(PROGRAM_SRC),$(eval $(call program_rule,$(p))))

$(B)/bench: $(BENCH_OBJS)
	@echo "  LD  $@" >&2
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $(LINKED) $(LIBS_client)

# What the storage costs without a cluster: tests/bench/storage/storage.c says how to use it.
$(B)/bench-storage: $(call objs,$(call src,tests/bench/storage) tests/bench/latencies.c) \
                    $(ROOM_OBJS_replication)
	@echo "  LD  $@" >&2
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $(LINKED) $(LIBS_server)

# What the library costs beside the bare protocol.
$(B)/bench-library: $(call objs,$(call src,tests/bench/library) tests/bench/latencies.c) \
                    $(B)/liblectern.a
	@echo "  LD  $@" >&2
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $(LINKED)

$(B)/sim: $(call objs,$(SIM_MAIN) $(SIM_SRC)) $(ROOM_OBJS_consensus)
	@echo "  LD  $@" >&2
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $(LINKED) $(LIBS_server)

$(B)/fuzz/%: $(B)/tests/fuzz/%_fuzz.o $(LIB_OBJS)
	@mkdir -p $(@D)
	@echo "  LD  $@" >&2
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $(LINKED) $(LIBS_server)

# Loaded into a node by tests/power: what it does to its files is written down.
$(B)/power_recorder.so: tests/power/recorder.c | deps
	@mkdir -p $(@D)
	@echo "  LD  $@" >&2
	$(Q)$(CC) -std=c11 -O1 -g $(WARN) -fPIC -shared -o $@ $<

# Loaded into a node by tests/cluster/test_disk_errors.py: lets its disk fail.
$(B)/disk_faults.so: tests/cluster/disk_faults.c | deps
	@mkdir -p $(@D)
	@echo "  LD  $@" >&2
	$(Q)$(CC) -std=c11 -O1 -g $(WARN) -fPIC -shared -o $@ $<

# A room's tests link that room and what lies below it: the layer rules hold at link time too.
$(B)/tests/check-%: $(TESTLIB_OBJS)
	@mkdir -p $(@D)
	@echo "  LD  $@" >&2
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $(LINKED) $(LIBS_server)
define unit_deps
$(B)/tests/check-$(1): $$(call objs,$$(wildcard tests/unit/$(1)/*.c)) $$(ROOM_OBJS_$(1))
endef
$(foreach r,$(UNIT_ROOMS),$(eval $(call unit_deps,$(r))))
$(B)/tests/check-consensus: $(call objs,$(SIM_SRC))
$(B)/tests/check-client: | $(B)/lectern
# Their sessions ask the test (tests/lib/asked.h).
$(B)/tests/check-http $(B)/fuzz/hrana_ws: private LDFLAGS_ALL += -Wl,--wrap=route

$(B)/node/http/http_conn.o $(B)/node/http/http_head.o: \
    private CFLAGS_ALL += -isystem $(LLHTTP_INCLUDE)
# No prerequisite: on a fresh machine the package comes with `deps`.
$(LLHTTP_OBJS): $(B)/llhttp/%.o: $(B)/.flags | deps
	@mkdir -p $(@D)
	@echo "  CC  $(LLHTTP_SOURCES)/$*.c" >&2
	$(Q)$(CC) -std=c11 -w -DLLHTTP_STRICT_MODE=1 -I$(LLHTTP_INCLUDE)/llhttp \
	    $(CFLAGS_$(VARIANT)) -c -o $@ $(LLHTTP_SOURCES)/$*.c

$(B)/%.o: %.c $(B)/.flags | deps
	@mkdir -p $(@D)
	@echo "  CC  $<" >&2
	$(Q)$(CC) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<

# Rewritten when the compiler or a flag changes: everything is then compiled again.
.PHONY: force
$(B)/.flags: force | deps
	@mkdir -p $(@D)
	@echo '$(CC) $(CFLAGS_ALL)' | cmp -s - $@ || echo '$(CC) $(CFLAGS_ALL)' >$@

.PHONY: objects unit-bins
objects: $(ALL_OBJS)
unit-bins: $(UNIT_BINS)

# --- tests ----------------------------------------------------------------------------------------

# Another variant beside this one.
variant = +$(Q)$(MAKE) --no-print-directory VARIANT=$(1) B=$(BUILD)/$(1)
RUN := python3 tests/run.py
TSAN_ROOMS := base,replication,consensus,node,client
FUZZ_SECONDS ?= 60
SIM_SEEDS ?= 1000

.PHONY: test test-unit check-asan check-tsan tsan-sqlite cluster stalls clients faults power
.PHONY: sim sim-assert fuzz bench cov lint format
test: ## everything below a quarter of an hour: unit, cluster, the same under sanitizers
	$(call variant,release) all unit-bins programs $(BUILD)/release/power_recorder.so \
	    $(BUILD)/release/disk_faults.so
	$(call variant,asan) all unit-bins programs
	$(call variant,tsan) unit-bins
	$(Q)$(RUN) unit:$(BUILD)/release unit:$(BUILD)/asan unit:$(BUILD)/tsan:$(TSAN_ROOMS) \
	    cluster:$(BUILD)/release cluster-short:$(BUILD)/asan power:$(BUILD)/release

test-unit: unit-bins ## unit tests of all rooms, in this variant
	$(Q)$(RUN) unit:$(B)

check-asan: ## unit tests and a short cluster set under AddressSanitizer and UBSan
	$(call variant,asan) all unit-bins programs
	$(Q)$(RUN) unit:$(BUILD)/asan cluster-short:$(BUILD)/asan

check-tsan: ## unit tests and a short cluster set under ThreadSanitizer
	$(call variant,tsan) all unit-bins programs
	$(Q)$(RUN) unit:$(BUILD)/tsan:$(TSAN_ROOMS) cluster-short:$(BUILD)/tsan

# Debian's libsqlite3 is not instrumented: what two threads do to one connection, or to the
# wal-index, is not seen there. SQLITE_SRC holds sqlite3.c of 3.40.1, sqlite.org's amalgamation.
SQLITE_SEEN := $(BUILD)/sqlite-tsan
SQLITE_OPTS := THREADSAFE=1 OMIT_LOOKASIDE SECURE_DELETE USE_URI MAX_VARIABLE_NUMBER=250000 \
    SOUNDEX $(patsubst %,ENABLE_%,COLUMN_METADATA DBSTAT_VTAB FTS3 FTS3_PARENTHESIS \
        FTS3_TOKENIZER FTS4 FTS5 LOAD_EXTENSION MATH_FUNCTIONS PREUPDATE_HOOK RTREE SESSION \
        STMTVTAB UNLOCK_NOTIFY)
tsan-sqlite: | deps ## cluster tests, ThreadSanitizer in SQLite too: SQLITE_SRC=DIR; T=NAME
	$(Q)test -f "$(SQLITE_SRC)/sqlite3.c" || { echo "SQLITE_SRC=DIR of sqlite3.c"; exit 2; }
	$(Q)mkdir -p $(SQLITE_SEEN)
	$(Q)$(CC) $(CFLAGS_tsan) -w -fPIC -shared $(SQLITE_OPTS:%=-DSQLITE_%) \
	    -Wl,-soname,libsqlite3.so.0 -o $(SQLITE_SEEN)/libsqlite3.so.0 "$(SQLITE_SRC)/sqlite3.c" -lm
	+$(Q)$(MAKE) --no-print-directory VARIANT=tsan B=$(SQLITE_SEEN) \
	    LDFLAGS=-Wl,-rpath,$(abspath $(SQLITE_SEEN)) all programs
	$(Q)$(RUN) $(if $(T),--only $(T) cluster,cluster-short):$(SQLITE_SEEN)

cluster: all programs $(B)/disk_faults.so ## three-node tests with real processes; T=NAME picks some
	$(Q)$(RUN) $(if $(T),--only $(T)) cluster:$(B)

stalls: all programs $(B)/disk_faults.so ## the same, while all of a test stands still now and then
	$(Q)python3 tests/stalls.py $(if $(T),--only $(T)) cluster:$(B)

faults: all programs ## long runs of kills, pauses and cuts; T=NAME picks some
	$(Q)$(RUN) $(if $(T),--only $(T)) faults:$(B)

clients: all ## drivers and ORMs of others, from npm and Debian, through kills of the leader
	@deploy/install-deps.sh --clients
	$(Q)$(RUN) --only test_drivers --only test_django cluster:$(B) faults:$(B)

power: all $(B)/power_recorder.so ## a power cut around every sync of a run; half an hour
	$(Q)LECTERN_LONG=1 $(RUN) power:$(B)

sim: $(if $(SIM_MAIN),$(B)/sim) ## the simulation over SIM_SEEDS seeds
	$(if $(SIM_MAIN),$(Q)$(B)/sim $(SIM_SEEDS),@echo "tests/sim/main.c is not there yet"; exit 1)

# Debian's libraft has its assertions compiled out: RAFT_SRC is a checkout of v0.22.1.
sim-assert: ## the simulation over a libraft with assertions: RAFT_SRC=DIR
	$(Q)test -f "$(RAFT_SRC)/src/raft.c" || { echo "RAFT_SRC=DIR of libraft v0.22.1"; exit 2; }
	$(Q)mkdir -p $(B)
	$(Q)$(CC) -std=gnu11 -D_GNU_SOURCE -I. -I$(RAFT_SRC)/include -O1 -g -w \
	    -fsanitize=address,undefined -fno-sanitize-recover=undefined -o $(B)/sim-assert \
	    tests/sim/*.c consensus/*.c base/*.c \
	    $(filter-out %/syscall.c,$(filter-out $(RAFT_SRC)/src/uv%,$(wildcard $(RAFT_SRC)/src/*.c))) \
	    -luv -lpthread
	$(Q)$(B)/sim-assert $(SIM_SEEDS)

fuzz: ## each fuzz target for FUZZ_SECONDS, from tests/fuzz/corpus
	@deploy/install-deps.sh --fuzz
	$(call variant,fuzz) CC=clang fuzz-run

.PHONY: fuzz-run
fuzz-run: $(FUZZ_BINS)
	$(Q)for f in $(FUZZ_BINS); do echo "== $$f"; mkdir -p $(B)/corpus/$${f##*/}; \
	    $$f -max_total_time=$(FUZZ_SECONDS) -verbosity=0 -print_final_stats=1 \
	        -artifact_prefix=$(B)/corpus/ $(B)/corpus/$${f##*/} \
	        $$(ls -d tests/fuzz/corpus/$${f##*/} 2>/dev/null) || exit 1; done

bench: all $(B)/bench $(B)/bench-library ## transactions a second beside local SQLite, as ratios
	@python3 tests/bench/run.py --build $(B)
	@python3 tests/bench/run.py --build $(B) --library
	@deploy/install-deps.sh --bench
	@exec python3 tests/bench/door.py --build $(B)

cov: ## line coverage of the unit tests, per room
	$(call variant,cov) unit-bins
	$(Q)find $(BUILD)/cov -name '*.gcda' -delete
	$(Q)$(RUN) unit:$(BUILD)/cov
	$(Q)python3 tests/lib/coverage.py $(BUILD)/cov

lint: ## format, layers, banned calls, and both compilers without a warning
	@deploy/install-deps.sh --lint
	+$(Q)status=0; for cc in gcc clang; do $(MAKE) --no-print-directory -k VARIANT=lint CC=$$cc \
	    B=$(BUILD)/lint-$$cc objects || status=1; done; \
	    python3 tests/lint/lint.py || status=1; exit $$status

format: ## clang-format all C files in place
	@deploy/install-deps.sh --lint
	clang-format -i $(wildcard */*.c */*.h tests/*/*.c tests/*/*.h tests/unit/*/*.c tests/unit/*/*.h)

-include $(patsubst %.o,%.d,$(ALL_OBJS) $(LIBRARY_OBJS) $(PROGRAM_OBJS))
