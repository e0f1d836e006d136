# A stand-in for OpenWrt's package.mk: one target for each thing a recipe says, of the variant that is built.

variant_of = $(lastword $(subst :=, ,$(filter VARIANT:=%,$(Package/$(1)))))
INSTALL_DIR = install -d -m 755
INSTALL_BIN = install -m 755
INSTALL_CONF = install -m 600
INSTALL_DATA = install -m 644
CP = cp -fpR

define BuildPackage
ifeq ($(BUILD_VARIANT),$(call variant_of,$(1)))
install:
	$$(call Package/$(1)/install,$$(DESTDIR))
conffiles:
	@echo '$$(Package/$(1)/conffiles)'
prepare:
	$$(Build/Prepare)
compile:
	$$(Build/Compile)
endif
endef
