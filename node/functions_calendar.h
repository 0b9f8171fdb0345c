/* Room: node. Days of the proleptic Gregorian calendar, counted from 1970-01-01. Thread: any. */
#ifndef NODE_FUNCTIONS_CALENDAR_H
#define NODE_FUNCTIONS_CALENDAR_H

#include <stdbool.h>
#include <stdint.h>

bool calendar_is_leap(int64_t year);
int calendar_month_days(int64_t year, int month);
int64_t calendar_day(int64_t year, int month, int day);
void calendar_date(int64_t day, int64_t *year, int *month, int *mday);
/* 0: Sunday. */
int calendar_weekday(int64_t day);
/* ISO 8601: the week's number and the year that it belongs to. */
void calendar_iso_week(int64_t day, int64_t *year, int *week);

#endif
