"""Settings for Django's own tests; LECTERN_DATABASES has both databases as JSON."""

import json
import os

SECRET_KEY = "tests only"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DATABASES = json.loads(os.environ["LECTERN_DATABASES"])
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
