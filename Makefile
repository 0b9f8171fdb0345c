# Lectern: one non-recursive Makefile. `make help` lists the targets.
# Output goes to build/<variant>/; variants: release (default), debug, asan, tsan.

VARIANT ?= release
CC      ?= cc
V       ?= 0
B       := build/$(VARIANT)
Q       := $(if $(filter 1,$(V)),,@)

PKGS := sqlite3 raft libuv liblz4 libxxhash
PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) 2>/dev/null)

WARN := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wcast-qual -Wstrict-prototypes \
        -Wmissing-prototypes -Wundef -Wvla -Wformat=2 -Wswitch-enum -Wimplicit-fallthrough
CFLAGS_release := -O2 -g
CFLAGS_debug   := -Og -g -Werror
CFLAGS_asan    := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
CFLAGS_tsan    := -O1 -g -fsanitize=thread -fno-omit-frame-pointer
CFLAGS += -std=c11 -D_GNU_SOURCE -I. $(WARN) $(CFLAGS_$(VARIANT)) $(PKG_CFLAGS) -fstack-protector-strong
LDFLAGS += $(filter -fsanitize%,$(CFLAGS_$(VARIANT)))
LIBS_server := -lraft -lsqlite3 -luv -llz4 -lxxhash -linih -lpthread
LIBS_client := -ledit -lsqlite3 -lxxhash -lpthread

ROOMS := base client replication consensus node
src    = $(wildcard $(1)/*.c)
objs   = $(patsubst %.c,$(B)/%.o,$(1))

# client/ holds the library (no prefix), the shell (shell*.c); node/main.c is the server's entry.
SHELL_SRC  := $(wildcard client/shell*.c)
CLIENT_SRC := $(filter-out $(SHELL_SRC),$(call src,client))
NODE_SRC   := $(filter-out node/main.c,$(call src,node))
BASE_OBJS  := $(call objs,$(call src,base))
ROOM_OBJS_base        := $(BASE_OBJS)
ROOM_OBJS_client      := $(BASE_OBJS) $(call objs,$(CLIENT_SRC))
ROOM_OBJS_replication := $(BASE_OBJS) $(call objs,$(call src,replication))
ROOM_OBJS_consensus   := $(BASE_OBJS) $(call objs,$(call src,consensus))
LIB_OBJS := $(sort $(ROOM_OBJS_client) $(ROOM_OBJS_replication) $(ROOM_OBJS_consensus) $(call objs,$(NODE_SRC)))
ROOM_OBJS_node        := $(LIB_OBJS)
TESTLIB    := $(call objs,$(wildcard tests/lib/*.c))
UNIT_ROOMS := $(patsubst tests/unit/%/,%,$(dir $(wildcard tests/unit/*/*_test.c)))
UNIT_ROOMS := $(sort $(UNIT_ROOMS))
UNIT_BINS  := $(patsubst %,$(B)/tests/check-%,$(UNIT_ROOMS))

.PHONY: all help
all: $(B)/lecternd $(B)/lectern ## build the server and the shell

help: ## list the targets
	@grep -hE '^[a-z][a-z-]*:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

$(B)/lecternd: $(B)/node/main.o $(LIB_OBJS)
	@echo "  LD  $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LIBS_server)

$(B)/lectern: $(call objs,$(SHELL_SRC) $(CLIENT_SRC)) $(BASE_OBJS)
	@echo "  LD  $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LIBS_client)

# A room's tests link that room and what lies below it: the layer rules hold at link time too.
$(B)/tests/check-%: $(TESTLIB)
	@mkdir -p $(@D)
	@echo "  LD  $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LIBS_server)
define unit_deps
$(B)/tests/check-$(1): $$(call objs,$$(wildcard tests/unit/$(1)/*.c)) $$(ROOM_OBJS_$(1))
endef
$(foreach r,$(UNIT_ROOMS),$(eval $(call unit_deps,$(r))))

$(B)/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC  $<"
	$(Q)$(CC) $(CFLAGS) -MMD -MP -c -o $@ $<

.PHONY: test-unit
test-unit: $(UNIT_BINS) ## unit tests of all rooms
	$(Q)status=0; for t in $(UNIT_BINS); do echo "== $$t"; $$t || status=1; done; exit $$status

.PHONY: clean
clean: ## remove build/
	rm -rf build

-include $(shell find $(B) -name '*.d' 2>/dev/null)
.SECONDARY:
