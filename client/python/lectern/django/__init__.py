"""Django's backend for Lectern: ENGINE = "lectern.django". docs/DJANGO.md has the settings."""
