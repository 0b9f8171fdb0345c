/* Room: node. Thread: any.
 *
 * Days to dates after Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": a year begins
 * in March, so that the leap day is its last, and 400 years are always 146,097 days. */
#include "node/functions_calendar.h"

#define ERA_DAYS 146097 /* 400 years */
#define TO_1970  719468 /* from 0000-03-01 */

bool calendar_is_leap(int64_t year)
{
    return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

int calendar_month_days(int64_t year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return days[month - 1] + (month == 2 && calendar_is_leap(year) ? 1 : 0);
}

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0 ? 1 : 0);
}

int64_t calendar_day(int64_t year, int month, int day)
{
    int64_t y = year - (month <= 2 ? 1 : 0);
    int64_t era = floor_div(y, 400), of_era = y - era * 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * ERA_DAYS + of_era * 365 + of_era / 4 - of_era / 100 + of_year - TO_1970;
}

void calendar_date(int64_t day, int64_t *year, int *month, int *mday)
{
    int64_t z = day + TO_1970, era = floor_div(z, ERA_DAYS), doe = z - era * ERA_DAYS;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
    *mday = (int)(doy - (153 * mp + 2) / 5 + 1);
    *month = (int)(mp < 10 ? mp + 3 : mp - 9);
    *year = yoe + era * 400 + (*month <= 2 ? 1 : 0);
}

int calendar_weekday(int64_t day)
{
    int64_t w = (day + 4) % 7; /* 1970-01-01 was a Thursday */
    return (int)(w < 0 ? w + 7 : w);
}

void calendar_iso_week(int64_t day, int64_t *year, int *week)
{
    int month, mday, since_monday = (calendar_weekday(day) + 6) % 7;
    int64_t thursday = day - since_monday + 3; /* a week belongs to the year of its Thursday */
    calendar_date(thursday, year, &month, &mday);
    *week = (int)((thursday - calendar_day(*year, 1, 1)) / 7 + 1);
}
